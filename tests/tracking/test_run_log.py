import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.errors import InputError, RunError
from peso_cli.tracking.run_log import RunLog, read_log

LINES = st.lists(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4) | st.booleans(), max_size=3))


def write(path, lines, keep_bytes=0):
    log = RunLog.open(path, keep_bytes)
    for line in lines:
        log.write(line)
    position = log.position
    log.close()
    return position


@settings(max_examples=30, deadline=None)
@given(lines=LINES, more=LINES)
def test_what_is_written_is_read_back(tmp_path_factory, lines, more):
    path = tmp_path_factory.mktemp("log") / "stage" / "log.jsonl"
    write(path, lines)
    write(path, more, keep_bytes=None)
    assert read_log(path) == lines + more


@settings(max_examples=30, deadline=None)
@given(lines=LINES, more=LINES, lost=st.binary(max_size=30))
def test_a_resumed_log_has_the_bytes_of_one_never_stopped(tmp_path_factory, lines, more, lost):
    folder = tmp_path_factory.mktemp("log")
    write(folder / "straight", lines + more)
    checkpoint = write(folder / "resumed", lines)
    with (folder / "resumed").open("ab") as handle:
        handle.write(lost)
    write(folder / "resumed", more, keep_bytes=checkpoint)
    assert (folder / "resumed").read_bytes() == (folder / "straight").read_bytes()


def test_a_log_that_was_cut_stands_where_it_was_cut_before_anything_is_written(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = write(path, [{"a": 1}])
    write(path, [{"b": 2}], keep_bytes=None)
    log = RunLog.open(path, whole)
    assert log.position == whole == path.stat().st_size
    log.close()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_half_written_last_line_is_left_out_and_written_over(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    whole = '{"a": 1}\n{"b": "ü"}\n'.encode()
    path.write_bytes(whole[:-cut])
    assert read_log(path) == [{"a": 1}]
    write(path, [{"c": 2}], keep_bytes=None)
    assert read_log(path) == [{"a": 1}, {"c": 2}]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog.open(path, 0)
    log.write({"event": "train", "step": 1, "loss": 0.1})
    assert json.loads(path.read_text()) == {"event": "train", "step": 1, "loss": 0.1}
    assert log.position == path.stat().st_size


def test_zero_starts_anew(tmp_path):
    write(tmp_path / "log.jsonl", [{"old": 1}])
    write(tmp_path / "log.jsonl", [{"new": 1}])
    assert read_log(tmp_path / "log.jsonl") == [{"new": 1}]


@pytest.mark.parametrize("keep_bytes", [4, 100])
def test_a_position_that_is_no_line_end_is_refused_and_the_file_kept(tmp_path, keep_bytes):
    path = tmp_path / "log.jsonl"
    write(path, [{"a": 1}, {"b": 2}])
    before = path.read_bytes()
    with pytest.raises(RunError, match=rf"log\.jsonl: byte {keep_bytes} is no line's end"):
        RunLog.open(path, keep_bytes)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ["{broken", "[1]", "", "\udcff"])
def test_a_broken_line_inside_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"b": 1}}\n', errors="surrogateescape")
    with pytest.raises(InputError, match=r"log\.jsonl:2: not a JSON object"):
        read_log(path)


def test_a_missing_log_is_named(tmp_path):
    with pytest.raises(InputError, match=r"log\.jsonl: no such file"):
        read_log(tmp_path / "log.jsonl")
