import functools
import json
import math
import shutil
import time

import pytest
from artifact_makers import PROTOCOL, figures_document, made

from peso_cli.errors import InputError
from peso_cli.reports.collected import collect


def read(output):
    lines = []
    return collect(output, lines.append), lines


def test_a_finished_artifact_is_a_record(tmp_path):
    folder = made(tmp_path, "peso", 3, 0.2, seed=4, composition=("evolving", "softmax_kl", "current"))
    (record,), lines = read(tmp_path)
    place = record.place
    assert (place.dataset, place.backbone, place.method, place.variant) == ("synthetic", "tiny", "peso", "v1")
    assert (place.seed, place.stage, record.folder, record.own) == (4, 3, folder, True)
    assert record.protocol == PROTOCOL
    assert record.figures()["ndcg@10"] == 0.2
    assert record.figures(2) is None
    assert record.data == record.data_of(3) == "data 3"
    assert record.settings["regularizer.strength"] == 3000.0
    assert record.settings["decoding.beams"] == 30
    assert record.prompt["prompt.name"] == "compact"
    assert set(record.groups()) == {"new", "dormant"}
    assert (record.fingerprint, record.parent) == ("peso 3 4v1", "peso 2 4")
    assert lines == []


def test_figures_of_another_protocol_are_a_record_of_their_own(tmp_path):
    folder = made(tmp_path, stage=2, value=0.2)
    (folder / "evaluations").mkdir()
    (folder / "evaluations/x.json").write_text(json.dumps(figures_document(2, {2: 0.3}, beams=50)))
    own, other = read(tmp_path)[0]
    assert (own.own, other.own) == (True, False)
    assert (own.settings["decoding.beams"], other.settings["decoding.beams"]) == (30, 50)
    assert other.figures()["recall@10"] == 0.3
    assert other.metrics["stored_bytes"] == own.metrics["stored_bytes"] == 200


def test_what_is_not_finished_is_no_record(tmp_path):
    (made(tmp_path) / "DONE").unlink()
    assert read(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lineage.json", "{"),
        ("lineage.json", "{}"),
        ("lineage.json", '{"method": "peso", "seed": 1, "stage": 2, "parents": [3], "fingerprint": "x"}'),
        ("lineage.json", '{"method": "peso", "seed": 1, "stage": 2, "parents": [], "fingerprint": "x", "data": 3}'),
        ("metrics.json", "[]"),
        ("metrics.json", '{"evaluated": {"2": {"test": {"recall@5": null, "ndcg@5": 0.5}}}}'),
        ("metrics.json", '{"evaluated": {"2": {"test": {"recall@5": 0.5, "ndcg@5": 0.5}}}}'),
        ("config.yaml", "a: ["),
        ("config.yaml", "3"),
        ("config.yaml", b"\xff"),
        ("config.yaml", None),
        ("metrics.json", None),
    ],
)
def test_a_damaged_one_is_left_out_with_a_line_that_names_it(tmp_path, name, content):
    folder = made(tmp_path, stage=2)
    made(tmp_path, stage=3)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    records, (line,) = read(tmp_path)
    assert [record.place.stage for record in records] == [3]
    assert line.startswith("left out: ")
    assert str(folder) in line
    assert "\n" not in line


@pytest.mark.parametrize("content", ["{", '{"protocol": 3}'])
def test_damaged_figures_of_another_protocol_leave_the_stages_own_alone(tmp_path, content):
    path = made(tmp_path) / "evaluations/x.json"
    path.parent.mkdir()
    path.write_text(content)
    (record,), (line,) = read(tmp_path)
    assert record.own
    assert str(path) in line


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "nowhere")


def test_a_thousand_artifacts_are_read_in_a_moment(tmp_path):
    for variant in range(25):
        for seed in range(1, 11):
            first = made(tmp_path, stage=2, seed=seed, variant=f"v{variant}")
            for stage in (3, 4, 5):
                shutil.copytree(first, first.with_name(f"stage_{stage}"))
    begun = time.process_time()
    records, lines = read(tmp_path)
    assert time.process_time() - begun < 3
    assert (len(records), lines) == (1000, [])


PLACES = (
    ("evaluated", "2", "test", "ndcg@5"),
    ("evaluated", "2", "test", "item", "recall@5"),
    ("evaluated", "2", "test", "popularity", "recall@5"),
    ("evaluated", "2", "valid", "ndcg@10"),
    ("evaluated", "1", "test", "ndcg@10"),
    ("groups", "2", "test", "new", "ndcg@10"),
    ("training", "best_validation_loss"),
    ("seconds", "train"),
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", PLACES, ids="/".join)
def test_what_is_not_finite_is_never_a_figure(tmp_path, place, value):
    folder = made(tmp_path, stage=2, on={1: 0.2}, valid=0.1)
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    *keys, name = place
    functools.reduce(dict.__getitem__, keys, metrics)[name] = value
    path.write_text(json.dumps(metrics))
    records, (line,) = read(tmp_path)
    assert records == []
    assert line.startswith(f"left out: {folder}")
