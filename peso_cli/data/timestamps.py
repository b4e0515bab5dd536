"""Moments as people write them, turned into milliseconds since 1970 UTC."""

from __future__ import annotations

import time
from typing import Literal

import polars as pl

from peso_cli.errors import InputError

Unit = Literal["auto", "s", "ms"]

DAY = 86_400_000
"""Milliseconds of a day."""

_MILLISECONDS_FROM = 1e11
"""Numbers from here on are milliseconds (of 1973 or later), those below are seconds (of 5138 or earlier)."""

_ISO = (
    r"^(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r" ?(?:[Zz]|UTC|(?P<sign>[+-])(?P<ahead_hours>[0-9]{2}):?(?P<ahead_minutes>[0-9]{2})?)?)?$"
)


def latest_moment() -> int:
    """Return the last moment that an interaction may have: a day from now."""
    return int(time.time() * 1000) + DAY


def milliseconds(texts: pl.Series, unit: Unit, latest: int) -> pl.Series:
    """Read timestamps: numbers (whole, with a point or an exponent), ISO 8601, or `YYYY-MM-DD HH:MM:SS`.

    A time without a zone is taken as UTC; what is finer than a millisecond is cut off from ISO texts.

    Args:
        texts: (rows,) strings as they were written.
        unit: of numbers; `auto` tells each by its size.
        latest: the last moment that counts.

    Returns:
        (rows,) Int64 milliseconds since 1970 UTC; null where a text is no moment, or one before 1970-01-02 or after
        `latest`.
    """
    stripped = texts.str.strip_chars()
    moments = _from_numbers(stripped, unit)
    unread = moments.is_null() & stripped.is_not_null()
    if unread.any():
        moments = moments.scatter(unread.arg_true(), _from_iso(stripped.filter(unread)))
    return moments.set(((moments < DAY) | (moments > latest)).fill_null(False), None)


def moment_of(setting: str, text: str) -> int:
    """Read an ISO 8601 setting as milliseconds since 1970 UTC.

    Raises:
        InputError: it can't be read.
    """
    moment = _from_iso(pl.Series([text.strip()], dtype=pl.String))[0]
    if moment is None:
        raise InputError(f"{setting}={text}: is no moment; write it as 2018-01-31 or 2018-01-31T12:30:00Z")
    return int(moment)


def iso(moment: int) -> str:
    """Return a moment as ISO 8601 text, in UTC."""
    return f"{pl.Series([moment]).cast(pl.Datetime('ms')).dt.to_string('%Y-%m-%dT%H:%M:%S%.3f')[0]}Z"


def _from_numbers(texts: pl.Series, unit: Unit) -> pl.Series:
    numbers = pl.col("number")
    in_seconds = {"s": pl.lit(True), "ms": pl.lit(False), "auto": numbers < _MILLISECONDS_FROM}[unit]
    scaled = pl.when(in_seconds).then(numbers * 1000).otherwise(numbers).round()
    table = pl.DataFrame({"number": texts.cast(pl.Float64, strict=False)})
    return table.select(scaled.cast(pl.Int64, strict=False)).to_series()


def _from_iso(texts: pl.Series) -> pl.Series:
    parts = texts.str.extract_groups(_ISO).struct.unnest()
    hours, minutes, seconds = (_number(name) for name in ("hour", "minute", "second"))
    ahead_hours, ahead_minutes = _number("ahead_hours"), _number("ahead_minutes")
    fraction = pl.concat_str(pl.col("fraction").fill_null(""), pl.lit("000")).str.slice(0, 3).cast(pl.Int64)
    ahead = pl.when(pl.col("sign") == "-").then(-1).otherwise(1) * (ahead_hours * 60 + ahead_minutes)
    days = pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Int64)
    moment = days * DAY + ((hours * 60 + minutes - ahead) * 60 + seconds) * 1000 + fraction
    sound = (hours < 24) & (minutes < 60) & (seconds < 60) & (ahead_hours < 24) & (ahead_minutes < 60)
    return parts.select(pl.when(sound).then(moment)).to_series()


def _number(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Int64).fill_null(0)
