from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.data.timestamps import DAY, iso, latest_moment, milliseconds, moment_of
from peso_cli.errors import InputError

LATEST = 4_000_000_000_000


def read(*texts, unit="auto"):
    return milliseconds(pl.Series(texts, dtype=pl.String), unit, LATEST).to_list()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("879024327", 879024327000),
        ("879024327.0", 879024327000),
        ("879024327.25", 879024327250),
        ("8.7e8", 870000000000),
        (" 879024327 ", 879024327000),
        ("1588687728923", 1588687728923),
        ("1.588687728923e12", 1588687728923),
        ("2018-01-31", 1517356800000),
        ("2018-01-31T12:30:00Z", 1517401800000),
        ("2018-01-31T12:30:00", 1517401800000),
        ("2018-01-31 12:30:00", 1517401800000),
        ("2018-01-31 12:30:00 UTC", 1517401800000),
        ("2018-01-31T12:30", 1517401800000),
        ("2018-01-31T12:30:00.1239+02:00", 1517394600123),
        ("2018-01-31t12:30:00-0130", 1517407200000),
        ("2018-01-31T12:30:00+02", 1517394600000),
    ],
)
def test_every_way_to_write_a_moment_is_read(text, moment):
    assert read(text) == [moment]


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "nan", "inf", "-5", "0", "86399", "1e300", "1969-12-31", "2200-01-01", "2018-02-30"],
)
def test_what_is_no_moment_or_out_of_range_is_null(text):
    assert read(text) == [None]


@pytest.mark.parametrize(
    "text",
    ["2018-01-31T24:00", "2018-01-31T12:60", "2018-01-31T12:30:61", "2018-01-31T12:30:00+25:00", "31.01.2018"],
)
def test_clocks_and_zones_that_dont_exist_are_null(text):
    assert read(text) == [None]


def test_digits_of_other_scripts_are_no_moment():
    assert read("\u0662\u0660\u0661\u0668-01-31") == [None]


def test_numbers_and_texts_may_stand_in_one_column_with_gaps():
    assert read("86400", None, "2018-01-31", "x", "1588687728923") == [DAY, None, 1517356800000, None, 1588687728923]


def test_a_given_unit_overrules_the_size_of_numbers_but_not_iso_texts():
    assert read("90000000", "2018-01-31", unit="ms") == [90000000, 1517356800000]
    assert read("1000000000", "200000000000", unit="s") == [1000000000000, None]


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 3), datetime(2090, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_iso_texts_are_read_as_the_standard_library_reads_them(moment, ahead):
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=ahead)))
    exact = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert read(aware.isoformat(), aware.isoformat(" "), str(exact), unit="ms") == [exact] * 3


def test_tomorrow_is_the_last_moment_that_counts():
    latest = latest_moment()
    assert milliseconds(pl.Series([str(latest), str(latest + 1)]), "auto", latest).to_list() == [latest, None]


def test_a_setting_that_is_no_moment_is_named():
    with pytest.raises(InputError, match=r"cleaning\.earliest=soon: .*2018-01-31"):
        moment_of("cleaning.earliest", "soon")


@settings(deadline=None)
@given(st.integers(0, LATEST))
def test_a_moment_is_shown_as_it_is_read(moment):
    assert moment_of("x", iso(moment)) == moment
