"""Titles, ids and templates of anyone's making: shown by every command, obeyed by no terminal."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
from commands.running import SMALL, peso
from hostile import ODD_TEXTS, harmless, seeds, unprintable
from rich.table import Table
from worlds import sid_texts, write_released

from peso_cli.characters import cleaned, json_text, one_line, printable
from peso_cli.errors import InputError, RunError
from peso_cli.terminal import OUT, warn

OVERRIDES = tuple(word for word in SMALL if not word.startswith("dataset."))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[str, ...]:
    """An untrained stage 1 of a dataset whose ids and titles are odd; the overrides that lead to it."""
    folder = tmp_path_factory.mktemp("odd")
    titles = cycle([*(text for text in ODD_TEXTS if text != "\ud800"), "\ud800", "y" * 1_000_000])
    names = [f"{n}{text}" for n, text in enumerate(ODD_TEXTS) if text != "\ud800"]
    index = {name: sid_texts((n % 7, n % 5)) for n, name in enumerate(names)}
    texts = {name: {"title": next(titles)} for name in names}
    users = {f"user\x1b[31m\u202e{n}": {"previous_block": [], "current_block": names[n : n + 6]} for n in range(12)}
    write_released(folder / "data", index, {0: users}, texts)
    words = ("dataset=released", "dataset.name=odd", f"dataset.path={folder / 'data'}", f"output={folder / 'outputs'}")
    answer = peso("train", "stage=1", *words, *OVERRIDES, "trainer.epochs=0")
    harmless(answer, "stage 1")
    assert answer.code == 0
    return (*words, *OVERRIDES, "trainer.epochs=0")


@pytest.mark.parametrize("form", [(), ("--json",), ("--why", "6"), ("--why", "--json")])
def test_recommendations_of_odd_items_reach_no_terminal_as_orders(world, form):
    answer = peso("recommend", "stage=1", "--user", "user\x1b[31m\u202e3", *world, *form)
    harmless(answer, "stage 1")
    assert answer.code == 0
    if "--json" in form:
        assert answer.document["user"] == "user\x1b[31m\u202e3"


@pytest.mark.parametrize(
    "words",
    [
        ("recommend", "stage=1", "--user", "\x1b[31mnobody"),
        ("recommend", "stage=1", "--history", "1 ,\u202eno"),
        ("data", "stats"),
        ("data", "examples", "--split", "test"),
        ("evaluate", "stage=1"),
    ],
)
def test_other_commands_show_odd_ids_harmlessly(world, words):
    harmless(peso(*words, *world))


@pytest.mark.parametrize("seed", seeds(15))
def test_templates_of_prompts_are_taken_or_refused_in_one_line(world, seed):
    random = Random(seed)
    output = Path(world[3].partition("=")[2])
    for _ in range(2):
        parts = {key: "".join(random.choices(ODD_TEXTS, k=2)) for key in ("head", "item", "tail")}
        parts["item"] += random.choice(["{sid}", "{sid", "{sid}{sid}", "{0}", "{bos}{sid}{end}"])
        folder = output.parent / "conf" / "prompt"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "odd.yaml").write_text(json.dumps({"name": "odd", "window": 5, **parts}))
        words = [word for word in world if not word.startswith("prompt")]
        harmless(peso("train", "stage=1", *words, "prompt=odd", "--config-dir", folder.parent), "stage 1")


@pytest.mark.parametrize("seed", seeds(10))
def test_tables_and_lines_take_any_text_to_the_letter(capsys, seed):
    random = Random(seed)
    for _ in range(50):
        texts = ["".join(random.choices(ODD_TEXTS, k=3)) for _ in range(3)]
        table = Table(texts[0], title=texts[1])
        table.add_row(texts[2])
        OUT.print(table)
        OUT.print(texts[0])
        warn(texts[1])
    shown = capsys.readouterr()
    assert not unprintable((shown.out + shown.err).replace("\r", ""))
    (shown.out + shown.err).encode()
    OUT.print("[bold]:smile:[/x]")
    assert capsys.readouterr().out == "[bold]:smile:[/x]\n"


@pytest.mark.parametrize("seed", seeds(10))
def test_texts_are_cleaned_and_documents_lose_nothing(seed):
    random = Random(seed)
    for _ in range(100):
        text = "".join(chr(random.choice((random.randrange(0x300), random.randrange(0x110000)))) for _ in range(20))
        text += random.choice(ODD_TEXTS)
        assert not unprintable(printable(text)) | unprintable(cleaned(text))
        assert len(one_line(text).splitlines()) <= 1
        document = json_text({"text": text, text: [1]})
        assert not unprintable(document)
        document.encode()
        assert json.loads(document) == {"text": text, text: [1]}


def test_errors_are_one_line_whatever_they_quote():
    for kind in (InputError, RunError):
        message = str(kind("a\n\x1b[31mb\u2028" + "c" * 10_000))
        assert message.startswith("a [31mb ")
        assert not unprintable(message)
        assert len(message) < 5000
