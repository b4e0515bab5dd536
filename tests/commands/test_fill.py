"""`peso tables --run-missing`: what is named under a table is carried out, and then the table is whole."""

import shutil

from commands.running import peso
from test_own_method import folder

from peso_cli.commands.fill import fill
from peso_cli.reports.model import Gap


class Heard:
    """A display that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def bar(self, title):
        return lambda done, total, note: None


def table(output, name, *words):
    answer = peso("tables", name, "--output", output, "--format", "json", *words)
    return answer, answer.document["tables"] if answer.out else []


def lacking(tables):
    return [note["command"] for found in tables for note in found["footnotes"] if note["command"]]


def test_missing_stages_are_trained_and_the_table_is_whole(copied):
    _, whole = table(copied.output, "main")
    for stage in (2, 3):
        shutil.rmtree(copied.folder("pretrain", stage))
    answer, found = table(copied.output, "main", "method=single,peso,pretrain", "--run-missing")
    assert (answer.code, found) == (0, whole)
    assert "1 of 1: peso train stage=3 method=pretrain" in answer.err


def test_the_matrix_of_forgetting_is_filled(copied):
    answer, found = table(copied.output, "forgetting", "method=pretrain", "--run-missing")
    assert answer.code == 0
    assert lacking(found) == []


def test_a_choice_on_validation_is_filled_before_it_is_made(copied):
    words = ("stage=3", "method=peso", "regularizer.strength=10", *copied.arguments())
    assert peso("train", *words).code == 0
    answer, found = table(copied.output, "main", "--chosen")
    assert (answer.code, found) == (2, [])
    assert "first run: peso evaluate" in answer.err
    answer, (chosen,) = table(copied.output, "main", "--chosen", "--run-missing")
    assert answer.code == 0
    assert [row["name"] for row in chosen["rows"]][:3] == ["pretrain", "single", "peso"]
    _, (swept,) = table(copied.output, "strength", "method=peso")
    assert lacking([swept]) == []
    assert any(note["text"].startswith("chosen on validation: peso (") for note in swept["footnotes"])


def test_one_that_fails_is_a_line_and_the_others_are_filled(copied):
    (copied.folder("peso", 3) / "DONE").unlink()
    (copied.folder("peso", 3) / "lineage.json").write_text("{")
    (copied.folder("pretrain", 3) / "DONE").unlink()
    answer, (found,) = table(copied.output, "main", "--run-missing")
    assert answer.code == 1
    assert "Traceback" not in answer.err
    (line,) = [line for line in answer.err.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: peso train stage=3 method=peso")
    assert answer.err.splitlines()[-1] == "peso: 1 of the commands that fill the table failed, as said above"
    cells = {row["name"]: row["cells"]["ndcg@5"]["mean"] for row in found["rows"]}
    assert (cells["peso"], cells["pretrain"] is None) == (None, False)


def test_each_gap_is_tried_once_and_new_ones_after_it():
    first, second = (Gap("train", ("stage=1", f"method={name}")) for name in ("no", "neither"))
    rounds = iter([[first, first], [first, second], [first, second]])
    heard = Heard()
    assert fill(lambda: next(rounds), heard) == 2
    assert [line.split(":")[0] for line in heard.lines] == ["1 of 1", "failed", "1 of 1", "failed"]


def test_a_method_of_ones_own_needs_its_folder(copied, tmp_path):
    own, words = folder(tmp_path / "own"), ("method=pinned", "regularizer.strength=0.5", *copied.arguments())
    assert peso("train", "stage=2", "--config-dir", own, *words).code == 0

    answer, (found,) = table(copied.output, "main", "--run-missing")
    (command,) = lacking([found])
    assert command.endswith("--config-dir FOLDER")
    assert answer.code == 1
    assert "give that as --config-dir FOLDER" in answer.err

    answer, found = table(copied.output, "main", "--run-missing", "--config-dir", own)
    assert answer.code == 0, answer.err
    assert lacking(found) == []
    assert copied.folder("pinned", 3).parents[1] == copied.folder("pinned", 2).parents[1]


def test_a_config_folder_that_is_not_there_is_one_line(copied):
    answer, _ = table(copied.output, "main", "--config-dir", copied.output / "nowhere")
    assert answer.code == 2
    assert "nowhere: no such folder" in answer.err
