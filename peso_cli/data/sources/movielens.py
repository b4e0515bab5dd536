"""MovieLens (Harper and Konstan 2015) in all its layouts, and as RecBole gives the smallest one."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns, RawDataset
from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.layouts import Layout, Scan
from peso_cli.data.sources.recbole import atomic_events, atomic_items
from peso_cli.data.sources.separated import scan_lines, scan_separated
from peso_cli.data.sources.table import ROW, Table, events_of, items_of
from peso_cli.data.sources.unpacking import as_utf8
from peso_cli.errors import InputError

_RATINGS = ("user", "item", "rating", "timestamp")
_FILMS = ("item", "title", "genres")
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_NO_GENRE = ("unknown", "(no genres listed)")

_EVENTS = EventColumns(user="user", item="item", timestamp="timestamp", rating="rating")
_ITEMS = ItemColumns(item="item", title="title", description=None, brand=None, categories="genres")


def _events_100k(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    return events_of(scan_separated(file, "\t", names=_RATINGS), _EVENTS)


def _events_dat(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    return events_of(_scan_colons(file, _RATINGS), _EVENTS)


def _events_csv(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    names = EventColumns(user="userId", item="movieId", timestamp="timestamp", rating="rating")
    return events_of(scan_separated(file, ",", '"'), names)


def _items_100k(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    """Each genre is a column of 0 and 1."""
    names = ("item", "title", "release", "video", "url", *_GENRES)
    table = scan_separated(SourceFile(as_utf8(file.path), file.shown), "|", names=names)
    flags = [pl.when(table.text(genre) == "1").then(pl.lit(genre)) for genre in _GENRES if genre not in _NO_GENRE]
    items = table.rows.with_columns(pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres"))
    columns = {"item": table.columns["item"], "title": table.columns["title"], "genres": "genres"}
    return _with_genres(items_of(Table(items, columns, file.shown, 1), _ITEMS))


def _items_dat(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    return _with_genres(items_of(_scan_colons(SourceFile(as_utf8(file.path), file.shown), _FILMS), _ITEMS))


def _items_csv(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    names = ItemColumns(item="movieId", title="title", description=None, brand=None, categories="genres")
    return _with_genres(items_of(scan_separated(file, ",", '"'), names))


def _items_recbole(file: SourceFile, config: RawDataset) -> pl.LazyFrame:
    return _with_genres(atomic_items(file, config))


def _scan_colons(file: SourceFile, names: tuple[str, ...]) -> Table:
    """Return the rows of a file whose fields are separated by `::`; a row with more or fewer is all nulls."""
    lines = scan_lines(file.path).filter(pl.col("line").is_not_null())
    fields = pl.col("line").str.strip_chars_end("\r").str.split("::")
    fits = fields.list.len() == len(names)
    columns = {name: pl.when(fits).then(fields.list.get(n, null_on_oob=True)) for n, name in enumerate(names)}
    return Table(lines.select(ROW, **columns), {name: name for name in names}, file.shown, 1)


def _with_genres(items: pl.LazyFrame) -> pl.LazyFrame:
    genres = pl.col("categories")
    listed = pl.when(~genres.is_in(_NO_GENRE)).then(genres)
    return items.with_columns(listed.str.replace_all("|", ", ", literal=True))


_EVENT_FILES = {"u.data": _events_100k, "ratings.dat": _events_dat, "ratings.csv": _events_csv}
_ITEM_FILES = {"u.item": _items_100k, "movies.dat": _items_dat, "movies.csv": _items_csv}


def _by_name(scans: Mapping[str, Scan], ending: str, otherwise: Scan) -> Scan:
    def scan(file: SourceFile, config: RawDataset) -> pl.LazyFrame:
        if file.path.name in scans:
            return scans[file.path.name](file, config)
        if file.path.suffix == ending:
            return otherwise(file, config)
        known = ", ".join((*scans, f"*{ending}"))
        raise InputError(f"{file.shown}: not a file of MovieLens ({known}); give the unpacked folder")

    return scan


MOVIELENS = Layout(
    _by_name(_EVENT_FILES, ".inter", atomic_events),
    _by_name(_ITEM_FILES, ".item", _items_recbole),
    (*_EVENT_FILES, "*.inter"),
    (*_ITEM_FILES, "*.item"),
)
