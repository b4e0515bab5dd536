"""Overrides that nobody means well with, and a configuration that never holds what the environment does."""

from __future__ import annotations

from random import Random

import pytest
from commands.running import SMALL, files_of, peso, refused
from hostile import ODD_TEXTS, SECRET, harmless, seeds

from peso_cli.config.compose import compose, config_folders, group_options, leaves
from peso_cli.errors import InputError
from peso_cli.sweeps.grid import read_grid

PIECES = (
    *(
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        "\\",
        "${",
        "$",
        ":",
        "=",
        ",",
        "(",
        ")",
        "@",
        "+",
        "~",
        "*",
        "#",
        "%s",
        ".",
        "..",
        "/",
    ),
    *("range(1,3)", "range(1,1e12)", "range(0,1,0)", "choice(a,b)", "interval(0,1)", "tag(a,1)", "glob(*)", "int(1)"),
    *(
        "json_str('1')",
        "extend_list(1)",
        "shuffle(range(1,999999999))",
        "sort(3,1)",
        "nan",
        "-inf",
        "1e999",
        "9" * 5000,
    ),
    *("${oc.env:WANDB_API_KEY}", "${oc.decode:${oc.env:HF_TOKEN}}", "${oc.select:output}", "${oc.create:{a:1}}"),
    *(
        "${output}",
        "${.name}",
        "${...x}",
        "${now:%Y}",
        "${hydra:job}",
        "_here_",
        "[1,2]",
        "{a: 1}",
        "a b",
        "tiny",
        "???",
    ),
    *("os.system", "peso_cli.artifacts.Artifact", "..x.Y", "[" * 400, "{a:" * 200, *ODD_TEXTS),
)
CASES = 12


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN", "HOME_SECRET"):
        monkeypatch.setenv(name, SECRET)


def odd_word(random: Random, keys: list[str]) -> str:
    key = random.choice(keys) + random.choice(["", "", "", "", ".x", "._target_", "[0]", "/y"])
    value = "".join(random.choice(PIECES) for _ in range(random.choice([1, 1, 1, 2, 4])))
    ways = (value, f"'{value}'", f"[{value}]", f"{{a: {value}}}", f"${{oc.env:{value}}}", f"${{{random.choice(keys)}}}")
    return f"{key}={random.choice(ways)}" if random.random() < 0.9 else value


@pytest.mark.parametrize("seed", seeds(80))
def test_overrides_are_taken_or_refused_in_one_line(seed):
    random = Random(seed)
    keys = [*(key for key, _ in leaves(compose([]).plain)), *group_options(config_folders(None))]
    for _ in range(CASES):
        word = odd_word(random, keys)
        try:
            composed = compose([word])
        except InputError as error:
            said = str(error)
            assert len(said.splitlines()) == 1, word
        else:
            said = repr((composed.plain, composed.origins))
        assert SECRET not in said


@pytest.mark.parametrize("seed", seeds(40))
def test_a_sweep_reads_its_words_or_refuses_them_in_one_line(seed):
    random = Random(seed)
    keys = ["seed", "method", "trainer.epochs", "experiment", "regularizer.strength"]
    for _ in range(CASES):
        word = odd_word(random, keys)
        try:
            assert len(read_grid([word]).points) <= 100_000
        except InputError as error:
            assert len(str(error).splitlines()) == 1, word  # noqa: PT017  (either outcome is right)


@pytest.mark.parametrize("seed", seeds(6))
def test_filters_and_settings_of_every_command_are_harmless(tmp_path, seed):
    random, keys = Random(seed), ["dataset", "method", "stage", "seed", "output", "variant", "decoding.beams"]
    for command in (("runs",), ("tables", "main"), ("plot", "stages"), ("report",)):
        word = odd_word(random, keys)
        answer = peso(*command, *([] if command == ("runs",) else [f"x{word}"]), "--output", tmp_path)
        assert answer.code in (0, 2)
    for command in (("config",), ("sweep", "--plan"), ("data", "stats"), ("evaluate",)):
        words = ["dataset.users=20", f"output={tmp_path}", odd_word(random, keys[1:])]
        harmless(peso(*command, *words), "1 runs, ")


@pytest.mark.parametrize(
    "value", ["${oc.env:WANDB_API_KEY}", "'${oc.decode:${oc.env:HF_TOKEN}}'", "x${oc.env:WANDB_API_KEY,none}"]
)
def test_the_environment_is_not_read_into_a_configuration(value):
    refused(peso("config", f"output={value}"), "output", "oc.env", "environment")


def test_the_environment_is_not_read_by_a_file_of_the_users_own(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("name: ${oc.env:WANDB_API_KEY}\n")
    answer = peso("config", "method=mine", "--config-dir", tmp_path)
    assert answer.code == 2
    assert SECRET not in answer.out + answer.err


def test_no_file_of_a_run_holds_a_secret_of_the_environment(tmp_path):
    words = (*SMALL, f"output={tmp_path}", "trainer.epochs=0")
    trained, shown = peso("train", "stage=1", *words), peso("config", "--json", *words)
    assert trained.code == shown.code == 0, trained.err
    assert SECRET not in trained.out + trained.err + shown.out + shown.err
    assert all(SECRET.encode() not in content for content in files_of(tmp_path).values())


def test_a_word_that_is_longer_than_any_name_is_shortened_in_the_refusal():
    line = refused(peso("config", f"{'a' * 50_000}=1"))
    assert len(line) < 5000


def test_a_grid_that_no_memory_holds_is_refused():
    for words in (["seed=range(1,1000000000)"], [f"{key}=range(0,5000)" for key in ("seed", "trainer.epochs")]):
        with pytest.raises(InputError, match="100,000"):
            read_grid(words)
