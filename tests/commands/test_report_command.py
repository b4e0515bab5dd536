"""The file that `peso report` leaves, and what it says."""

import re

import pytest
from artifact_makers import made
from commands.running import peso
from two_tower import towers

from peso_cli.commands.report import report
from peso_cli.errors import InputError


def test_the_page_is_written_and_its_path_printed(tmp_path, capsys):
    made(tmp_path / "runs", "peso")
    broken = made(tmp_path / "runs", "single")
    (broken / "metrics.json").write_text("{")
    to = tmp_path / "new" / "page.html"
    report(tmp_path / "runs", ["method=peso"], to, "single", False)
    out, err = capsys.readouterr()
    assert out == f"{to}\n"
    assert [path.name for path in to.parent.iterdir()] == ["page.html"]
    page = to.read_text()
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert f"peso tables main method=peso --output {tmp_path / 'runs'}" in page
    for place in (err, page):
        assert f"left out: {broken / 'metrics.json'}" in place
    assert "synthetic, tiny, Training: " in err


def test_a_page_that_cannot_be_finished_leaves_the_one_before(tmp_path, monkeypatch):
    made(tmp_path / "runs", "peso")
    to = tmp_path / "page.html"
    to.write_text("before")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("peso_cli.reports.page.document.document", lambda *_: "after")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report(tmp_path / "runs", [], to, "single", False)
    assert to.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "runs"]


def test_what_is_wrong_with_a_report_is_one_line(tmp_path):
    made(tmp_path / "runs", "peso")
    made(tmp_path / "runs", "single", beams=50)
    to = tmp_path / "page.html"
    for arguments, part in (
        ((tmp_path / "nowhere", [], to, "single", False), "no such folder"),
        ((tmp_path / "runs", ["method=pesto"], to, "single", False), "no such method (did you mean peso?)"),
        ((tmp_path / "runs", ["method=l2"], to, "single", False), "nothing finished behind stage 1"),
        ((tmp_path / "runs", [], to, "single", False), "differ in decoding.beams"),
        ((tmp_path / "runs", [], tmp_path / "runs", "single", True), "is a folder; give a file"),
    ):
        with pytest.raises(InputError) as caught:
            report(*arguments)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not to.exists()


def test_why_asks_the_models_what_carried_the_sample_recommendations(trained, tmp_path):
    to = tmp_path / "page.html"
    answer = peso("report", "method=peso,single", "--output", trained.output, "--to", to, "--why")
    assert answer.code == 0, answer.err
    page = to.read_text()
    assert "not known" not in page
    user = re.search(r"What carried the first one to (\w+)", page)[1]
    example = peso("data", "examples", "--stage", 3, "--split", "test", "--user", user, *trained.arguments()).document
    asked = ("--history", ",".join(example["history"]), "--why", "3", "--json")
    (first, *_) = peso("recommend", "stage=3", *trained.arguments(), *asked).document["items"]
    owed = page[page.index(f"What carried the first one to {user}") :]
    for each in first["why"]:
        assert f"{each['contribution']:+.3f} ".replace("-", "\N{MINUS SIGN}") in owed[: owed.index("</table>")]
        assert each["title"] in owed[: owed.index("</table>")]


def test_without_why_the_report_says_how_to_ask(trained, tmp_path):
    to = tmp_path / "page.html"
    assert peso("report", "method=peso", "--output", trained.output, "--to", to).code == 0
    page = to.read_text()
    assert "What carried" not in page
    assert "peso report --why method=peso --output" in page


def test_what_a_method_cannot_tell_is_said_in_its_place(tmp_path):
    output, to = tmp_path / "runs", tmp_path / "page.html"
    answer = peso("train", "stage=2", *towers.arguments(output, "bpr", "finetune"))
    assert answer.code == 0, answer.err
    assert peso("report", "--output", output, "--to", to, "--why").code == 0
    assert "not known: --why: the model has a vector of its own for user" in to.read_text()
