"""Whatever is in a file, a reader gives its tables or says in one line why it can't."""

import gzip
import io
import random
from datetime import datetime

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_files import COLUMNS, ITEM_COLUMNS, collected, json_lines, open_files

from peso_cli.data.sources.frames import EVENT_SCHEMA, ITEM_SCHEMA
from peso_cli.errors import InputError, RunError

HEAD = ("user", "item", "time", "stars")
ITEM_HEAD = ("item", "title", "about", "maker", "kinds")
ROWS = [(f"u{n % 3}", f"i{n}", 1588687728923 + n, n % 5 + 0.5) for n in range(12)]
TEXTS = [(f"i{n}", f'The "{n}" é', "a, b", None, "k, l") for n in range(6)]


def separated(head, rows, separator, quoted):
    def field(value):
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if quoted and ("," in text or '"' in text) else text

    return "".join(separator.join(map(field, row)) + "\n" for row in ((head, *rows) if head else rows)).encode()


def objects(head, rows):
    return json_lines(*(dict(zip(head, row, strict=True)) for row in rows)).encode()


def parquet(head, rows):
    held = io.BytesIO()
    frame = pl.DataFrame(rows, schema=list(head), orient="row")
    if "time" in head:
        frame = frame.with_columns(when=pl.lit(datetime(2020, 1, 1)), many=pl.lit(["x"]))
    frame.write_parquet(held)
    return held.getvalue()


FILMS = [[f"i{n}", f"Café {n}", "", "", "", *("01" * 10)[:19]] for n in range(4)]
ATOMIC = ("user_id:token", "item_id:token", "timestamp:float", "rating:float")
ATOMIC_ITEM = ("item_id:token", "title:token_seq", "description:token_seq", "brand:token", "class:token_seq")
META = ("parent_asin", "title", "description", "store", "categories")
LISTS = [(f"i{n}", "T", ["a", "b"], None, ["k", "l"]) for n in range(6)]
SWAPPED = [(item, user, stars, time) for user, item, time, stars in ROWS]
COLONS = [(user, item, stars, time) for user, item, time, stars in ROWS]

FILES = {
    "csv": ("e.csv", separated(HEAD, ROWS, ",", True), "i.csv", separated(ITEM_HEAD, TEXTS, ",", True)),
    "tsv": ("e.tsv", separated(HEAD, ROWS, "\t", True), "i.tsv", separated(ITEM_HEAD, TEXTS, "\t", True)),
    "jsonl": ("e.jsonl", objects(HEAD, ROWS), "i.jsonl", objects(ITEM_HEAD, TEXTS)),
    "jsonl packed": ("e.jsonl.gz", gzip.compress(objects(HEAD, ROWS)), "i.jsonl", objects(ITEM_HEAD, LISTS)),
    "parquet": ("e.parquet", parquet(HEAD, ROWS), "i.parquet", parquet(ITEM_HEAD, LISTS)),
    "amazon_2023": (
        *("e.jsonl", objects(("user_id", "parent_asin", "timestamp", "rating"), ROWS)),
        *("meta.jsonl", objects(META, LISTS)),
    ),
    "amazon_2023 benchmark": (
        *("e.csv", separated(("user_id", "parent_asin", "timestamp", "rating"), ROWS, ",", True)),
        *("meta.jsonl", objects(META, TEXTS)),
    ),
    "amazon_2018": (
        *("e.json", objects(("reviewerID", "asin", "unixReviewTime", "overall"), ROWS)),
        *("meta.json", objects(("asin", "title", "description", "brand", "category"), LISTS)),
    ),
    "amazon_2018 ratings": (
        *("e.csv", separated(None, SWAPPED, ",", False)),
        *("meta.json", objects(("asin", "title", "description", "brand", "category"), TEXTS)),
    ),
    "yelp": (
        *("review.json", objects(("user_id", "business_id", "date", "stars"), ROWS)),
        *("business.json", objects(("business_id", "name", "city", "nothing", "categories"), TEXTS)),
    ),
    "movielens 100k": (
        *("u.data", separated(None, COLONS, "\t", False)),
        *("u.item", separated(None, FILMS, "|", False).decode().encode("latin-1")),
    ),
    "movielens 1m": (
        *("ratings.dat", separated(None, COLONS, "::", False)),
        *("movies.dat", separated(None, [(i, t, "A|B") for i, t, *_ in TEXTS], "::", False)),
    ),
    "movielens 32m": (
        *("ratings.csv", separated(("userId", "movieId", "rating", "timestamp"), COLONS, ",", True)),
        *("movies.csv", separated(("movieId", "title", "genres"), [(i, t, "A|B") for i, t, *_ in TEXTS], ",", True)),
    ),
    "recbole": ("e.inter", separated(ATOMIC, ROWS, "\t", False), "i.item", separated(ATOMIC_ITEM, TEXTS, "\t", False)),
}
"""By source: the name and content of a whole file of interactions, and of one of items."""

STRANGE = (
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    b'"',
    b",",
    b"\t",
    b"{",
    b"}",
    b"[",
    b"::",
    b"|",
    b"null",
    b"1e999",
    b"\\ud800",
)


def mutated(content, rng):
    """A file's content after one to three mishaps."""
    for _ in range(rng.randint(1, 3)):
        content = rng.choice((flipped, cut, shuffled, renamed, strewn))(content, rng)
    return content


def flipped(content, rng):
    changed = bytearray(content)
    for _ in range(min(len(changed), rng.randint(1, 5))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content, rng):
    return content[: rng.randint(0, len(content))] if rng.random() < 0.7 else content[rng.randint(0, len(content)) :]


def shuffled(content, rng):
    lines = content.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines[: rng.randint(1, len(lines))])


def renamed(content, rng):
    words = sorted(set(content.replace(b'"', b" ").replace(b",", b" ").replace(b":", b" ").split()))
    return content.replace(rng.choice(words), rng.choice((b"", b"other", *words, *STRANGE))) if words else content


def strewn(content, rng):
    place = rng.randint(0, len(content))
    return content[:place] + rng.choice(STRANGE) * rng.randint(1, 3) + content[place:]


def outcome(folder, source, events, items):
    """Write and read two files; return what became of it."""
    event_name, _, item_name, _ = FILES[source]
    (folder / event_name).write_bytes(events)
    (folder / item_name).write_bytes(items)
    try:
        found, texts = collected(open_files(source.split()[0], [folder / event_name], [folder / item_name]))
    except (InputError, RunError) as error:
        lines = str(error).splitlines()
    else:
        lines = []
    if lines:
        assert len(lines) == 1
        return "refused"
    assert found.schema == EVENT_SCHEMA
    assert texts.schema == ITEM_SCHEMA
    assert not texts["item"].has_nulls()
    assert texts["item"].is_unique().all()
    assert not found["place"].has_nulls()
    return "read"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("source", FILES)
def test_whole_files_are_read(folder, source):
    assert outcome(folder, source, FILES[source][1], FILES[source][3]) == "read"


@pytest.mark.parametrize("source", FILES)
def test_mutilated_files_are_read_or_refused_in_one_line(folder, source):
    _, events, _, items = FILES[source]
    rng = random.Random(source)
    outcomes = set()
    for case in range(125):
        outcomes.add(outcome(folder, source, mutated(events, rng), items if case % 2 else mutated(items, rng)))
    assert "read" in outcomes


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from([*HEAD, *ITEM_HEAD, "x", ""])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(names, values, max_size=9), max_size=6), st.data())
def test_any_values_in_json_lines(folder, rows, data):
    content = json_lines(*rows).encode()
    head = json_lines(dict.fromkeys(HEAD, 1), dict.fromkeys(ITEM_HEAD, data.draw(values))).encode()
    outcome(folder, "jsonl", head + content, head + content)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(FILES)), st.binary(max_size=60), st.booleans())
def test_any_bytes(folder, source, content, headed):
    _, events, _, items = FILES[source]
    first = events.split(b"\n")[0] + b"\n" if headed else b""
    outcome(folder, source, first + content, items)


kinds = st.sampled_from(
    [
        *(pl.Int8, pl.UInt64, pl.Float32, pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Time, pl.Duration, pl.Null),
        *(pl.Datetime("ns"), pl.Datetime("ms", "Asia/Tokyo"), pl.Categorical, pl.Decimal(10, 2), pl.List(pl.String)),
        *(pl.List(pl.List(pl.Int8)), pl.Struct({"a": pl.Int8}), pl.Array(pl.Float64, 2), pl.Enum(["a", "b"])),
    ]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(kinds, min_size=4, max_size=4), st.lists(kinds, min_size=5, max_size=5), st.randoms())
def test_any_types_in_parquet(folder, event_kinds, item_kinds, rng):
    seed = rng.randrange(2**31)
    for name, head, types in (("e", HEAD, event_kinds), ("i", ITEM_HEAD, item_kinds)):
        series = [pl.Series(column, [None, None], dtype=kind) for column, kind in zip(head, types, strict=True)]
        filled = [sampled(one, random.Random(seed)) for one in series]
        pl.DataFrame(filled).write_parquet(folder / f"{name}.parquet")
    outcome(folder, "parquet", (folder / "e.parquet").read_bytes(), (folder / "i.parquet").read_bytes())


def sampled(series, rng):
    """The column with numbers in it, where its type takes them."""
    try:
        return pl.Series([rng.randint(0, 99), None]).cast(series.dtype).alias(series.name)
    except pl.exceptions.PolarsError:
        return series


def test_the_columns_of_the_files_are_those_of_the_settings():
    assert (COLUMNS.user, COLUMNS.item, COLUMNS.timestamp, COLUMNS.rating) == HEAD
    assert ITEM_COLUMNS.item == ITEM_HEAD[0]
