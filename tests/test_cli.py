import json
import os
import subprocess
import sys

import pytest
from commands.running import WORLD, peso, refused

from peso_cli import __version__
from peso_cli.commands import runs as runs_command
from peso_cli.errors import RunError

HEAVY = {"torch", "transformers", "peft", "accelerate", "hydra", "omegaconf", "pydantic", "wandb", "pyarrow", "rich"}
RUN = "from peso_cli.cli import main; main()"


def python(code, *arguments, **environment):
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def loaded_after(*arguments):
    """Which modules a command has loaded, in a process of its own."""
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n" + RUN
    done = python(code, *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


# Help


def test_help_is_there_without_loading_anything_heavy():
    assert not loaded_after("--help") & HEAVY
    assert not loaded_after("--version") & HEAVY
    # Typer may load pydantic for the types of a command's options.
    assert not loaded_after("train", "--help") & (HEAVY - {"pydantic"})
    assert not loaded_after("fetch", "--help") & (HEAVY - {"pydantic"})


def test_looking_at_settings_and_data_needs_no_torch(tmp_path):
    assert not loaded_after("config") & {"torch", "transformers", "wandb", "pyarrow"}
    assert not loaded_after("fetch") & {"torch", "transformers", "wandb", "pyarrow", "hydra"}
    assert not loaded_after("data", "stats", *WORLD) & {"torch", "transformers", "wandb", "pyarrow"}


def test_a_run_that_is_all_there_is_shown_without_torch(trained):
    command = ("train", "stage=3", *trained.arguments())
    assert not loaded_after(*command) & {"torch", "transformers"}
    assert not loaded_after("evaluate", *command[1:]) & {"torch", "transformers"}


def test_help_names_every_command():
    answer = peso("--help")
    assert answer.code == 0
    for command in ("train", "evaluate", "recommend", "runs", "config", "fetch", "data", "track"):
        assert f"\n  {command} " in answer.out
    for command in ("stats", "examples"):
        assert f"\n  {command} " in peso("data", "--help").out


@pytest.mark.parametrize("command", [["train"], ["evaluate"], ["recommend"], ["config"], ["data", "stats"]])
def test_every_command_explains_overrides(command):
    answer = peso(*command, "--help")
    assert answer.code == 0
    assert "[OVERRIDES]...\n" in answer.out
    assert "stage=3 method=peso" in answer.out
    assert "--config-dir" in answer.out


def test_version():
    answer = peso("--version")
    assert (answer.code, answer.out.strip()) == (0, __version__)


# Exit codes


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_a_missing_command_shows_what_there_is(arguments):
    answer = peso(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert "Commands:" in answer.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trane"], "No such command 'trane'"),
        (["data", "stat"], "No such command 'stat'"),
        (["runs", "more"], "unexpected extra argument"),
        (["runs", "--foo"], "No such option: --foo"),
        (["data", "examples", "--stage", "x"], "--stage"),
        (["recommend", "--k", "0"], "--k"),
        (["recommend", "--k"], "--k"),
    ],
)
def test_what_the_command_line_can_not_mean_is_2(arguments, part):
    answer = peso(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert part in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("command", [["train"], ["evaluate"], ["recommend"], ["config"], ["data", "stats"]])
@pytest.mark.parametrize("option", ["--foo", "--foo=3", "-x", "--stage"])
def test_an_option_that_is_not_there_is_named(command, option):
    refused(peso(*command, option, *WORLD), f"no such option: {option.partition('=')[0]}")


def test_overrides_and_options_may_stand_in_any_order():
    answers = [
        peso("data", "stats", "--json", *WORLD),
        peso("data", "stats", *WORLD, "--json"),
        peso("data", "stats", WORLD[0], "--json", *WORLD[1:]),
    ]
    assert answers[0].code == 0
    assert len({answer.out for answer in answers}) == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RunError("it broke"), 1, "peso: it broke"),
        (PermissionError(13, "Permission denied", "/some/file"), 1, "peso: /some/file: Permission denied"),
        (OSError(28, "No space left on device"), 1, "peso: the system: No space left on device"),
        (
            KeyboardInterrupt(),
            130,
            "peso: interrupted; the same command goes on from what is finished, and from a stage's last checkpoint",
        ),
    ],
)
def test_how_a_command_ends_is_one_line_and_a_code(monkeypatch, error, code, line):
    def fail(*args):
        raise error

    monkeypatch.setattr(runs_command, "runs", fail)
    answer = peso("runs")
    assert (answer.code, answer.out, answer.err.splitlines()) == (code, "", [line])


def test_a_defect_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(runs_command, "runs", None)
    with pytest.raises(TypeError):
        peso("runs")


# In a process of its own


def test_a_whole_command_prints_one_document_and_nothing_else(copied):
    done = python(RUN, "train", "stage=3", "method=l2", "--json", *copied.arguments())
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["stages"]) == ["3"]
    reused, *trained = done.stderr.splitlines()
    assert reused.startswith("stage 1: reusing /")
    assert [line.split(" /")[0] for line in trained[::2]] == ["stage 2: training", "stage 3: training"]
    assert [line.split(" examples")[0].rstrip("0123456789,") for line in trained[1::2]] == ["stage 2: ", "stage 3: "]


def test_a_reader_that_stops_early_is_no_trouble():
    command = f"{sys.executable} -c '{RUN}' data examples dataset.users=2000 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout).keys() == {"user", "history", "target"}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("meth", ["method=peso", "method=single"]), ("method=pe", ["method=peso"]), ("stage", ["stage="]), ("zz", [])],
)
def test_the_shell_completes_choices(typed, expected):
    wanted = {"_PESO_COMPLETE": "complete_bash", "COMP_WORDS": f"peso train {typed}", "COMP_CWORD": "2"}
    done = python("import sys; sys.argv[0] = 'peso'\nfrom peso_cli.cli import app; app(prog_name='peso')", **wanted)
    found = done.stdout.split()
    assert set(expected) <= set(found)
    assert all(choice.startswith(typed) for choice in found)
    assert bool(found) == bool(expected)
