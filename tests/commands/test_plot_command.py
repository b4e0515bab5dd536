"""The files that `peso plot` leaves, and what it says."""

import subprocess
import sys

import pytest
from artifact_makers import made

from peso_cli.commands.plot import plot
from peso_cli.errors import InputError

BOTH = ("svg", "png")


def test_pictures_are_written_and_their_paths_printed(tmp_path, capsys):
    made(tmp_path / "runs", "peso")
    made(tmp_path / "runs", "peso", dataset="amazon_games")
    to = tmp_path / "new" / "plots"
    plot("stages", tmp_path / "runs", [], to, BOTH, "single", False)
    out, err = capsys.readouterr()
    names = ["stages.svg", "stages.png", "stages-2.svg", "stages-2.png"]
    assert out.splitlines() == [str(to / name) for name in names]
    assert err == ""
    assert sorted(path.name for path in to.iterdir()) == sorted(names)


def test_what_is_missing_is_said_with_the_command_that_fills_it(tmp_path, capsys):
    made(tmp_path, "peso", 2)
    made(tmp_path, "single", 3)
    plot("groups", tmp_path, ["method=peso,single,l2"], tmp_path / "plots", ("svg",), "single", False)
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "missing: l2, nothing is finished"
    assert err[1].startswith("missing: single, seed 1, stage 2: peso train stage=2 method=single")
    assert err[2].startswith("missing: peso, seed 1, stage 3: peso train stage=3 method=peso")


def test_what_is_wrong_with_a_plot_is_one_line(tmp_path):
    made(tmp_path, "peso")
    to = tmp_path / "plots"
    for arguments, part in (
        (("stage", tmp_path, [], to, BOTH, "", False), "plot stage: no such plot (did you mean stages?)"),
        (("stages", tmp_path, [], to, ("pgn",), "", False), "format pgn: give svg or png (did you mean png?)"),
        (("strength", tmp_path, [], to, BOTH, "", False), "plot strength: needs one method trained with several"),
        (("stages", tmp_path, ["method=single"], to, BOTH, "", False), "nothing finished behind stage 1"),
        (("training", tmp_path, [], to, BOTH, "", False), "log.jsonl: no such file"),
        (("stages", tmp_path / "nowhere", [], to, BOTH, "", False), "no such folder"),
    ):
        with pytest.raises(InputError) as caught:
            plot(*arguments)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not to.exists()


def test_matplotlib_waits_until_something_is_drawn():
    code = "import sys; from peso_cli.commands.plot import plot_names; plot_names(); print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
