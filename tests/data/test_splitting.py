from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged import ALL, HALVES, Lines, dataset_at, items_at, raw_of, stages_at

from peso_cli.data.build import build
from peso_cli.data.splitting import cut_points
from peso_cli.data.timestamps import moment_of
from peso_cli.errors import InputError

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DISJOINT = replace(HALVES, kind="user_disjoint")


def cuts(split, moments, pieces=3):
    return cut_points(split, lambda: iter(np.array_split(np.array(moments, dtype=np.int64), pieces)))


def split_of(*shares):
    return replace(HALVES, shares=shares)


def built(root, rows, split):
    build(dataset_at(root), ALL, split, raw_of(rows), Lines())
    return stages_at(root)


def naive_cut(moments, share):
    """The end of a share: the place between two different moments that is nearest, the earlier one of two."""
    target = min(round(share * len(moments)), len(moments) - 1)
    ends = [sum(m < cut for m in moments) for cut in range(min(moments), max(moments) + 2)]
    return min(ends, key=lambda end: (abs(end - target), end))


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.floats(0.05, 0.9), st.integers(1, 4))
def test_a_share_ends_at_the_nearest_change_of_moments(moments, share, pieces):
    (cut,) = cuts(split_of(share, 1 - share), moments, pieces)
    assert sum(m < cut for m in moments) == naive_cut(moments, share)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4 * 10**12), min_size=30, max_size=60, unique=True))
def test_shares_of_moments_far_apart_are_exact(moments):
    found = cuts(split_of(0.1, 0.5, 0.4), moments)
    assert found == [sorted(moments)[round(share * len(moments))] for share in (0.1, 0.6)]


def test_periods_are_equally_long():
    assert cuts(replace(HALVES, by="periods", periods=4), [107, 100, 103]) == [102, 104, 106]


def test_dates_are_taken_as_they_are():
    split = replace(HALVES, by="dates", dates=("2017-01-01", "2018-01-01T12:00:00+01:00"))
    assert cuts(split, [5]) == [moment_of("x", "2017-01-01"), moment_of("x", "2018-01-01T11:00:00Z")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"by": "dates"}, r"split\.dates=\[\]: give the dates"),
        ({"by": "dates", "dates": ("2018-01-01", "2017-01-01")}, "2017-01-01 doesn't come after 2018-01-01"),
        ({"by": "dates", "dates": ("soon",)}, r"split\.dates=soon: is no moment"),
        ({"shares": (0.5, 0.4)}, r"split\.shares: they sum to 0\.9; make it 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        cuts(replace(HALVES, **changes), [1, 2, 3])


ROWS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(0, 12)), max_size=40)
FRAME = [("a", "x", -1), ("a", "x", -1), ("b", "y", 13), ("b", "y", 13)]


@QUICK
@given(rows=ROWS, seed=st.randoms(), fewest=st.integers(1, 2), kind=st.sampled_from(["chronological", "user_disjoint"]))
def test_stages_are_those_of_a_naive_split_in_whatever_order_the_log_is(tmp_path_factory, rows, seed, fewest, kind):
    rows = [*rows, *FRAME]
    seed.shuffle(rows)
    dates = tuple(f"2017-07-14T02:40:00.00{n}Z" for n in (4, 9))
    split = replace(HALVES, by="dates", dates=dates, min_events=fewest, kind=kind)
    first = {user: min(t for u, _, t in rows if u == user) for user, _, _ in rows}
    stage = [sum(t >= cut for cut in (4, 9)) for t in (first[u] if kind == "user_disjoint" else t for u, _, t in rows)]
    expected = [sorted(row for row, s in zip(rows, stage, strict=True) if s == n) for n in range(3)]
    expected = [[row for row in part if sum(r[0] == row[0] for r in part) >= fewest] for part in expected]
    root = tmp_path_factory.mktemp("split") / "built"
    if not all(expected):
        with pytest.raises(InputError, match=r"stage [123]"):
            built(root, rows, split)
        return
    found = built(root, rows, split)
    assert [sorted(part) for part in found] == expected
    assert all(part == sorted(part, key=lambda row: (row[0], row[2])) for part in found)
    seen = [{row[1] for row in part} for part in expected]
    assert items_at(root) == [sorted(items - set().union(*seen[:n])) for n, items in enumerate(seen)]


def test_a_stage_without_events_is_named(tmp_path):
    split = replace(HALVES, by="dates", dates=("2017-07-14T02:40:00.005Z", "2017-07-14T02:40:00.006Z"))
    with pytest.raises(InputError, match=r"stage 2, from 2017-07-14T02:40:00\.005Z to .*\.006Z, has no event"):
        built(tmp_path / "built", [("a", "i", 0), ("a", "i", 9)], split)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_whose_users_have_too_few_events_is_named(tmp_path):
    rows = [("a", "i", 0), ("a", "j", 1), ("a", "i", 8), ("b", "i", 9)]
    with pytest.raises(InputError, match=r"split\.min_events=2: no user has as many events in stage 2"):
        built(tmp_path / "built", rows, replace(HALVES, min_events=2))
    assert list(tmp_path.iterdir()) == []


def test_no_user_comes_back_where_users_are_disjoint(tmp_path):
    rows = [(user, item, 10 * n + late) for n, user in enumerate("abcdef") for late, item in ((0, "i"), (100, "j"))]
    first, second = built(tmp_path / "built", rows, DISJOINT)
    assert {user for user, _, _ in first} == set("abc")
    assert {user for user, _, _ in second} == set("def")
    assert len(first) == len(second) == 6
