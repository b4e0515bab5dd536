from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged import ALL, HALVES, Lines, dataset_at, raw_of, stages_at

import peso_cli.data.build
from peso_cli.data.build import build
from peso_cli.data.cleaning import sort_parts, time_order, to_core
from peso_cli.data.event_files import Parts, append_events, events_of, into_parts
from peso_cli.errors import InputError

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SILENT = Lines().bar("")
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=60)


def cleaned(folder_of, rows, cleaning):
    """All events that a build leaves, and its report."""
    root = folder_of()
    report = build(dataset_at(root), cleaning, HALVES, raw_of(rows), Lines())
    return [event for stage in stages_at(root) for event in stage], report


@pytest.fixture
def folder_of(tmp_path, monkeypatch):
    """Gives new folders; events are held ten at a time, so that there are several parts."""
    monkeypatch.setattr(peso_cli.data.build, "PART", 10)
    numbers = iter(range(10**6))
    return lambda: tmp_path / f"built_{next(numbers)}"


@pytest.fixture
def parts_of(tmp_path):
    """Puts rows of (user, item, moment) into parts of about ten events."""
    numbers = iter(range(10**6))

    def make(rows) -> Parts:
        spool = tmp_path / f"log_{next(numbers)}"
        append_events(spool, events_of(*np.array(rows).T))
        same = np.arange(6, dtype=np.uint32)
        return into_parts(spool, tmp_path / f"parts_{next(numbers)}", same, same, 10, SILENT)

    return make


def rows_of(parts: Parts):
    return [event for part in range(parts.count) for event in parts.load(part).tolist()]


def naive_core(rows, users, items):
    while True:
        by_user, by_item = Counter(r[0] for r in rows), Counter(r[1] for r in rows)
        kept = [r for r in rows if by_user[r[0]] >= users and by_item[r[1]] >= items]
        if len(kept) == len(rows):
            return kept
        rows = kept


@QUICK
@given(rows=ROWS, users=st.integers(0, 6), items=st.integers(0, 6))
def test_the_core_is_that_of_a_naive_search(parts_of, rows, users, items):
    parts = parts_of(rows)
    sort_parts(parts, "keep", SILENT)
    step = to_core(parts, users, items, SILENT)
    expected = naive_core(rows, users, items)
    assert sorted(rows_of(parts)) == sorted(expected)
    left = (step.rows_before, step.rows_after, step.users, step.items)
    assert left == (len(rows), len(expected), len({r[0] for r in expected}), len({r[1] for r in expected}))


def test_a_core_that_falls_apart_in_many_rounds_is_followed_to_its_end(folder_of):
    chain = [(f"u{n}", item, n) for n in range(20) for item in (f"i{n}", f"i{n + 1}")]
    stayers = [(user, item, 100 * (user == "t")) for user in "st" for item in "xy"]
    kept, report = cleaned(folder_of, [*chain, *stayers], replace(ALL, core_users=2, core_items=2))
    assert {user for user, _, _ in kept} == {"s", "t"}
    assert report.dropped[-2].rows_after == 4


@QUICK
@given(rows=ROWS, kind=st.sampled_from(["events", "pairs", "keep"]))
def test_order_and_duplicates_are_those_of_a_naive_search(parts_of, rows, kind):
    parts = parts_of(rows)
    step = sort_parts(parts, kind, SILENT)
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))
    same = {"events": lambda n: ordered[n], "pairs": lambda n: ordered[n][:2], "keep": lambda n: n}[kind]
    first = {same(n): n for n in reversed(range(len(ordered)))}
    assert rows_of(parts) == [ordered[n] for n in sorted(first.values())]
    assert step.rows_before - step.rows_after == len(rows) - len(first)


@QUICK
@given(rows=ROWS, older=ROWS, kind=st.sampled_from(["events", "pairs"]))
def test_what_is_held_already_counts_as_the_first_of_its_kind(parts_of, rows, older, kind):
    parts, older = parts_of(rows), [(user, item, moment - 9) for user, item, moment in older]
    held = replace(parts, folder=parts.folder.with_suffix(".held"))
    held.folder.mkdir()
    held.add(events_of(*np.array(older).T))
    sort_parts(parts, kind, SILENT, held)
    width = 3 if kind == "events" else 2
    assert not {row[:width] for row in rows_of(parts)} & {row[:width] for row in older}
    assert {row[:width] for row in [*rows_of(parts), *older]} == {row[:width] for row in [*rows, *older]}


def test_events_of_one_moment_keep_the_order_of_the_log(folder_of):
    rows = [("a", item, 5) for item in "zmxazm"] + [("a", "first", 0), ("b", "late", 9)]
    kept, _ = cleaned(folder_of, rows, replace(ALL, duplicates="events"))
    assert [item for user, item, _ in kept if user == "a"] == ["first", "z", "m", "x", "a"]


def test_time_order_holds_for_users_and_moments_of_any_size():
    events = events_of([2**32 - 1, 0, 2**32 - 1, 0], [0, 1, 2, 3], [2**40, 2**40, 7, 2**40])
    assert events[time_order(events)]["item"].tolist() == [1, 3, 2, 0]
    assert time_order(events[:0]).tolist() == []


def test_ratings_and_bounds_of_time_are_counted_step_by_step(folder_of):
    rows = [
        ("a", "i", 0, 5.0),
        ("b", "i", 1, 3.0),
        ("b", "j", 2, None),
        ("c", "i", 3, 4.0),
        ("c", "j", 8, float("nan")),
    ]
    rows += [("d", "i", 86_400_000, 5.0), ("e", "j", -86_400_000, 5.0)]
    bounds = {"earliest": "2017-07-14T02:40:00Z", "latest": "2017-07-14T04:40:00+02:00"}
    kept, report = cleaned(folder_of, rows, replace(ALL, min_rating=4.0, earliest=bounds["earliest"], latest=None))
    assert sorted(kept) == [("a", "i", 0), ("c", "i", 3), ("d", "i", 86_400_000)]
    counts = [(step.step, step.rows_before, step.rows_after) for step in report.dropped]
    assert counts[:4] == [("bad rows", 7, 7), ("without a rating", 7, 5), ("min_rating", 5, 4), ("earliest", 4, 3)]
    with pytest.raises(InputError, match="latest: none of 7 events is left"):
        cleaned(folder_of, rows, replace(ALL, latest="2017-01-01"))


BAD = [("a", "i", 0), (None, "i", 1), ("a", "", 2), ("a", "i", "soon"), ("a", "i", None), ("b", "i", 5)]


def test_rows_that_cant_be_read_end_the_build_with_their_places(folder_of):
    with pytest.raises(InputError, match=r"4 of 6 rows .*\(log:2, log:3, log:4, …\).*cleaning\.on_bad_row=drop"):
        cleaned(folder_of, BAD, ALL)


def test_rows_that_cant_be_read_are_left_out_on_request_and_counted(folder_of):
    kept, report = cleaned(folder_of, BAD, replace(ALL, on_bad_row="drop"))
    assert kept == [("a", "i", 0), ("b", "i", 5)]
    assert report.dropped[0].line == (
        "bad rows: 4 events dropped, 2 events, 2 users, 1 items left (log:2, log:3, log:4, …)"
    )


def test_a_core_that_holds_nothing_is_an_error(folder_of):
    with pytest.raises(InputError, match="core: none of 3 events"):
        cleaned(folder_of, [("a", "i", 0), ("b", "i", 1), ("c", "j", 2)], replace(ALL, core_items=5))


def test_an_empty_log_is_an_error(folder_of):
    with pytest.raises(InputError, match="none of 0 events"):
        cleaned(folder_of, [], ALL)
