"""Names that become folders: whatever they are, nothing is written outside the output folder."""

from __future__ import annotations

from random import Random

import pytest
from commands.running import SMALL, peso
from hostile import ODD_TEXTS, harmless, seeds, surroundings

from peso_cli.config.compose import compose
from peso_cli.errors import InputError

KEYS = ("dataset.name", "method.name", "variant", "backbone.name", "prompt.name")
NAMES = (
    *ODD_TEXTS,
    *("..", ".", "../x", "a/../../x", "/tmp/x", "~", "~root", "-rf", ".hidden", "a\\b", "C:", "NUL", "aux.txt"),
    *("a..", "a ", "x" * 64, "x" * 65, "\u2024\u2024/x", "..%2fx", "a\u0000b", "link/x", "*", "a:b", "CON", "é"),
)


@pytest.mark.parametrize("seed", seeds(40))
def test_a_name_that_leads_elsewhere_is_refused_by_the_configuration(tmp_path, seed, monkeypatch):
    random = Random(seed)
    monkeypatch.chdir(tmp_path)
    for _ in range(6):
        name, key = random.choice(NAMES).replace("'", ""), random.choice(KEYS)
        try:
            composed = compose([f"{key}='{name}'"])
        except InputError:
            continue
        group, _, inner = key.partition(".")
        taken = composed.plain[group][inner] if inner else composed.plain[group]
        assert (tmp_path / "outputs" / taken).resolve().parent == (tmp_path / "outputs").resolve()
        assert len(taken) <= 64
    assert surroundings(tmp_path) == {}


@pytest.mark.parametrize("seed", seeds(5))
def test_commands_write_nothing_beside_the_output_folder(tmp_path, seed, monkeypatch):
    random, place = Random(seed), tmp_path / "work"
    (tmp_path / "elsewhere").mkdir()
    place.mkdir()
    (place / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(place)
    before = surroundings(tmp_path)
    for _ in range(3):
        key, name = random.choice(KEYS), random.choice(NAMES).replace("'", "")
        words = ("train", "stage=1", *SMALL, "trainer.epochs=0", "output=outputs", f"{key}='{name}'")
        harmless(peso(*words), "stage 1", "  ")
    after = surroundings(tmp_path)
    assert {path for path in after.keys() - before.keys() if not path.startswith("work/outputs")} == set()


@pytest.mark.parametrize("output", ["", "\x00", "x" * 300, "a\nb", "file", "file/below"])
def test_an_output_folder_that_can_not_be_made_is_one_line(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    answer = peso("train", "stage=1", *SMALL, "trainer.epochs=0", f"output='{output}'")
    harmless(answer, "stage 1", "  ")
    assert (tmp_path / "file").read_text() == "in the way"
