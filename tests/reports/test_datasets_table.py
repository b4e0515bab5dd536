"""The dataset table: figures of the very data that finished stages rest on, or none."""

import json
import shutil

import pytest
from artifact_makers import made

from peso_cli.commands.tables import tables
from peso_cli.data.blocks import read_released
from peso_cli.reports.collected import collect
from peso_cli.reports.published import published_name
from peso_cli.reports.selection import select
from peso_cli.reports.tables import datasets

BLOCKS = (
    {"u": ([], ["a", "b", "c"]), "v": ([], ["a", "d", "a"])},
    {"u": (["a", "b", "c"], ["a", "e", "f"]), "w": ([], ["f", "c"])},
    {"w": (["f", "c"], ["g", "a", "b", "g"])},
)


def write_blocks(folder, blocks=BLOCKS):
    folder.mkdir(exist_ok=True)
    for number, users in enumerate(blocks):
        block = {user: {"previous_block": before, "current_block": now} for user, (before, now) in users.items()}
        (folder / f"toy.all.block_{number}.json").write_text(json.dumps(block))
    index = {item: [f"<a_{n}>", f"<b_{n}>"] for n, item in enumerate("abcdefgh")}
    (folder / "toy.index.json").write_text(json.dumps(index))
    return folder


def trained(output, data, stages, name="toy", *words):
    """Artifacts that rest on stages of released data."""
    dataset = read_released(data, name)
    source = ("dataset=released", f"dataset.name={name}", f"dataset.path={data}", *words)
    for stage in stages:
        folder = made(output, "base" if stage == 1 else "peso", stage, dataset=name, words=source)
        lineage = json.loads((folder / "lineage.json").read_text())
        lineage["data"] = {"catalog": dataset.catalog.digest, "blocks": {str(stage): dataset.block(stage).digest}}
        (folder / "lineage.json").write_text(json.dumps(lineage))


@pytest.fixture
def data(tmp_path):
    return write_blocks(tmp_path / "data")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "outputs"


def built(output, *words):
    """The table of the only group, its figures by row and column, and its notes."""
    (group,) = select(collect(output, pytest.fail), words)
    (table,) = datasets.build(group)
    names = [column.name for column in table.columns]
    rows = {row.name: dict(zip(names, (cell.mean for cell in row.cells), strict=True)) for row in table.rows}
    return table, rows, [note.text for note in table.footnotes]


def test_stages_have_the_figures_of_their_data(output, data):
    trained(output, data, (1, 2, 3))
    table, rows, notes = built(output)
    assert (table.title, notes) == ("toy: the data by stage", [])
    assert [*rows] == ["D1", "D2", "D3", "all"]
    assert rows["D2"] == {
        "users": 2,
        "new users": 1,
        "items": 4,
        "new items": 2,
        "interactions": 5,
        "mean length": 2.5,
        "sparsity": pytest.approx(1 - 5 / 8),
    }
    assert rows["all"] == {
        **dict.fromkeys(rows["D2"]),
        "users": 3,
        "items": 7,
        "interactions": 15,
    }


def test_a_stage_on_which_nothing_finished_rests_is_left_out(output, data):
    trained(output, data, (1, 2))
    _, rows, notes = built(output)
    assert [*rows] == ["D1", "D2"]
    assert notes == ["stage 3 is left out: no finished stage rests on it"]


def test_other_data_is_never_shown(output, data):
    trained(output, data, (1, 2, 3))
    folder = output / "toy/tiny/peso/v1/seed_1/stage_2"
    write_blocks(data, (BLOCKS[0], {**BLOCKS[1], "x": ([], ["a", "b", "c"])}, BLOCKS[2]))
    _, rows, notes = built(output)
    assert [*rows] == ["D1", "D3"]
    assert rows["D1"]["new items"] == 4
    assert rows["D3"]["new items"] is None
    assert rows["D3"]["interactions"] == 4
    assert notes == [f"stage 2 is left out: the data are no longer those on which {folder} was trained"]


def test_other_semantic_ids_are_other_data(output, data):
    trained(output, data, (1, 2, 3))
    index = data / "toy.index.json"
    index.write_text(index.read_text().replace("<b_1>", "<b_2>"))
    _, rows, notes = built(output)
    assert rows == {}
    assert len(notes) == 3


def test_data_that_is_gone_is_a_footnote(output, data):
    trained(output, data, (1, 2, 3))
    shutil.rmtree(data)
    _, rows, notes = built(output)
    assert rows == {}
    assert all(f"dataset.path={data}: no such folder" in note for note in notes)
    assert all(note.startswith("no stage is shown by the settings of") for note in notes)


def test_a_missing_or_broken_block_is_a_footnote(output, data):
    trained(output, data, (1, 2, 3))
    (data / "toy.all.block_1.json").unlink()
    _, rows, notes = built(output)
    assert [*rows] == ["D1", "D3"]
    assert rows["D3"]["new items"] is None
    (note,) = notes
    assert "toy.all.block_1.json, which is missing" in note
    (data / "toy.all.block_1.json").write_text("{")
    assert built(output)[1] == {}
    assert "toy.all.block_1.json" in " ".join(built(output)[2])


def test_data_that_has_moved_is_found_by_the_settings_of_another_stage(output, data, tmp_path):
    trained(output, data, (1, 2))
    moved = data.rename(tmp_path / "moved")
    trained(output, moved, (3,))
    _, rows, notes = built(output)
    assert [*rows] == ["D1", "D2", "D3", "all"]
    assert all("no such folder" in note for note in notes)


def test_a_sample_is_said_to_be_one(output, data):
    trained(output, data, (1, 2, 3), "toy", "dataset.sample_users=2")
    _, _, notes = built(output)
    assert notes[-1].startswith("a sample: at most 2 users of each stage")


def test_published_figures_stand_beside_ours(output, shared):
    folder = shared / "data" / "amazon_instruments"
    trained(output, folder, (2, 3), "amazon_instruments")
    table, rows, notes = built(output)
    assert published_name("amazon_instruments") == "instruments"
    assert [*rows] == ["D2", "D3"]
    for row in rows.values():
        for figure in ("users", "new users", "items", "interactions"):
            assert row[figure] == row[f"{figure} (paper)"]
        assert row["new items"] is None
        assert row["new items (paper)"] > 2000
        assert row["mean length"] == pytest.approx(row["mean length (paper)"], abs=0.005)
        assert row["sparsity"] == pytest.approx(row["sparsity (paper)"], abs=1e-4)
    assert all(column.better == "none" for column in table.columns)
    assert notes == [f"stage {stage} is left out: no finished stage rests on it" for stage in (1, 4, 5)]


def test_backbones_that_share_a_dataset_have_one_table(output, data, capsys):
    trained(output, data, (1, 2, 3))
    shutil.copytree(output / "toy/tiny", output / "toy/other")
    tables("datasets", output, [], "json", "", False)
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert len(table["rows"]) == 4
