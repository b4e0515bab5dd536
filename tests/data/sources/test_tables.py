from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import COLUMNS, collected, config, json_lines, open_files, places, read, write

from peso_cli.data.raw import EventColumns, ItemColumns
from peso_cli.data.sources.frames import EVENT_SCHEMA, ITEM_SCHEMA, collecting
from peso_cli.errors import InputError

HEAD = "user,item,time,stars\n"


def refusal(source, interactions, items=(), **settings):
    with pytest.raises(InputError) as caught:
        collected(open_files(source, interactions, items, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# CSV and TSV


def test_csv_quotes_empty_lines_and_rows_of_other_lengths(tmp_path):
    text = HEAD + '"u,1","i ""x""",5,4\n\nu2,i2\nu3,i3,7,3,too many\n,,,\nu4,"",8,good\n\n\n'
    file = write(tmp_path / "e.csv", text)
    events, _ = read("csv", [file])
    assert events == [
        ("u,1", 'i "x"', "5", 4.0),
        ("u2", "i2", None, None),
        (None, None, None, None),
        ("u4", None, "8", None),
    ]
    assert places("csv", [file]) == ["e.csv:2", "e.csv:4", "e.csv:5", "e.csv:7"]


def test_tsv_packed_with_a_byte_order_mark_and_bytes_that_are_not_utf_8(tmp_path):
    text = "\ufeff" + HEAD.replace(",", "\t").replace("\n", "\r\n") + "u1\ti1\t5\tnan\r\n"
    file = write(tmp_path / "e.tsv.gz", text.encode() + b"u\xff\ti2\t6\t1\r\n")
    assert read("tsv", [file])[0] == [("u1", "i1", "5", None), ("u\ufffd", "i2", "6", 1.0)]


def test_files_come_in_the_given_order_and_those_of_a_folder_by_name(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / "many" / f"{name}.csv", f"{HEAD}{name},i,1,\n")
    write(tmp_path / "many" / "notes.txt", "not a table")
    last = write(tmp_path / "z.csv", f"{HEAD}z,i,1,\n")
    events, _ = read("csv", [last, tmp_path / "many"])
    assert [user for user, *_ in events] == ["z", "a", "b", "c"]


def test_columns_may_stand_in_any_order_and_a_rating_may_be_absent(tmp_path):
    first = write(tmp_path / "a.csv", "when,uid,x,iid\n1,u,?,i\n")
    names = EventColumns(user="uid", item="iid", timestamp="when", rating=None)
    assert read("csv", [first], columns=names)[0] == [("u", "i", "1", None)]


def test_the_first_row_of_an_item_counts_and_rows_without_one_are_left_out(tmp_path):
    events = write(tmp_path / "e.csv", HEAD)
    one = write(tmp_path / "a.csv", "item,title,about,maker,kinds\ni1,first,,,\n,nobody,,,\ni1,second,,,\n")
    two = write(tmp_path / "b.csv", "item,title,about,maker,kinds\ni1,third,,,\ni2,other,text,m,k\n")
    assert read("csv", [events], [one, two]) == (
        [],
        [("i1", "first", None, None, None), ("i2", "other", "text", "m", "k")],
    )


def test_a_missing_column_is_named_with_the_file_what_is_there_and_the_setting(tmp_path):
    file = write(tmp_path / "e.csv", "users,item,time,stars\nu,i,1,2\n")
    assert refusal("csv", [file]) == (
        f"{file}: no column 'user' (did you mean users?); set dataset.columns.user to its name; "
        "it has users, item, time, stars"
    )
    events = write(tmp_path / "ok.csv", HEAD)
    assert "set dataset.item_columns.title" in refusal("csv", [events], [events])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("user,item,item,time,stars\n", "two columns are called 'item'"),
        ("user,item,time,stars\ru,i,1,2\r", "the names of the columns can't be read"),
        (HEAD + 'u,"i,1,2\nu,i,1,2\n', "can't be read"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, text, what):
    assert what in refusal("csv", [write(tmp_path / "e.csv", text)])


def test_nothing_is_read_before_it_is_collected_and_places_only_on_demand(tmp_path):
    file = write(tmp_path / "e.csv", f"{HEAD}u,i,1,2\n")
    raw = open_files("csv", [file])
    assert raw.events.collect_schema() == EVENT_SCHEMA
    assert raw.items.collect_schema() == ITEM_SCHEMA
    assert "row number" in raw.events.select("place").explain()
    assert "row number" not in raw.events.select("user", "item").explain()
    file.write_text(f"{HEAD}later,i,1,2\n")
    assert collected(raw)[0]["user"].to_list() == ["later"]


texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
rows = st.lists(st.tuples(texts, texts, st.integers(0, 2**40), st.none() | st.floats(-9, 9)), max_size=20)


@settings(max_examples=40, deadline=None)
@given(rows)
def test_every_format_gives_the_same(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("same")
    frame = pl.DataFrame(rows, schema={"user": str, "item": str, "time": int, "stars": float}, orient="row")
    frame.write_csv(folder / "e.csv")
    frame.write_csv(folder / "e.tsv", separator="\t")
    frame.write_parquet(folder / "e.parquet")
    frame.write_ndjson(folder / "e.jsonl")
    expected = [(user, item, str(time), stars) for user, item, time, stars in rows]
    for source in ("csv", "tsv", "parquet", *(["jsonl"] if rows else [])):
        assert read(source, [folder / f"e.{source}"])[0] == expected


# JSON lines


def test_broken_lines_are_rows_of_nulls_with_their_place(tmp_path):
    good = {"user": "u", "item": "i", "time": 1, "stars": 2}
    lines = [json_lines(good), "{broken\n", "\n", "[1]\n", "3\n", '{"user": "cut', "\n", json_lines(good)]
    file = write(tmp_path / "e.jsonl", "".join(lines).encode() + b'{"user": "\xff"}\n')
    nothing = (None, None, None, None)
    whole = ("u", "i", "1", 2.0)
    events, _ = read("jsonl", [file])
    assert events == [whole, *[nothing] * 4, whole, ("\ufffd", None, None, None)]
    assert [int(place.split(":")[1]) for place in places("jsonl", [file])] == [1, 2, 4, 5, 6, 7, 8]


def test_odd_values_become_text_or_null(tmp_path):
    file = write(
        tmp_path / "e.jsonl",
        json_lines(
            {"user": 7, "item": 1.5, "time": 1588687728923, "stars": "4"},
            {"user": None, "item": {"a": 1}, "time": [1], "stars": True},
            {"user": "\ud800", "item": "é", "time": 12345678901234567890123, "stars": {}},
        ),
    )
    events, _ = read("jsonl", [file])
    assert events[:2] == [("7", "1.5", "1588687728923", 4.0), (None, None, None, None)]
    assert events[2][1:] == ("é", "12345678901234567890123", None)


def test_lists_of_texts_are_joined(tmp_path):
    events = write(tmp_path / "e.jsonl", json_lines({"user": "u", "item": "i", "time": 1, "stars": 2}))
    items = write(
        tmp_path / "i.jsonl",
        json_lines(
            {"item": "a", "title": "T", "about": ["x", None, "y"], "maker": 3, "kinds": ["k", "l"]},
            {"item": "b", "title": ["t", "u"], "about": "plain", "kinds": [["n"], ["m"]]},
            {"item": "c", "about": {"no": "text"}, "kinds": []},
        ),
    )
    assert read("jsonl", [events], [items])[1] == [
        ("a", "T", "x y", "3", "k, l"),
        ("b", "t u", "plain", None, "n, m"),
        ("c", None, None, None, None),
    ]


def test_keys_are_looked_for_in_the_first_lines(tmp_path):
    file = write(tmp_path / "e.jsonl", json_lines({"user": "u"}, {"item": "i", "time": 1}))
    assert "no column 'stars'" in refusal("jsonl", [file])
    assert "is a JSON object" in refusal("jsonl", [write(tmp_path / "a.jsonl", "[1]\n[2]\n")])
    assert "is a JSON object" in refusal("jsonl", [write(tmp_path / "b.jsonl", "")])


# Parquet


def test_parquet_columns_of_any_type(tmp_path):
    frame = pl.DataFrame(
        {
            "user": pl.Series(["a", "b"], dtype=pl.Categorical),
            "item": [196.0, 2.5],
            "time": [datetime(2020, 1, 2, 3, tzinfo=UTC), None],
            "stars": [4, 5],
        }
    )
    frame.with_columns(pl.col("time").dt.convert_time_zone("Asia/Tokyo")).write_parquet(tmp_path / "e.parquet")
    assert read("parquet", [tmp_path / "e.parquet"])[0] == [
        ("a", "196", "2020-01-02T03:00:00.000000Z", 4.0),
        ("b", "2.5", None, 5.0),
    ]
    assert places("parquet", [tmp_path / "e.parquet"]) == ["e.parquet:1", "e.parquet:2"]


def test_parquet_texts_of_any_type(tmp_path):
    frame = pl.DataFrame(
        {
            "item": [1, 2],
            "title": [date(2020, 1, 2), None],
            "about": [["x", None, "y"], []],
            "maker": [{"a": 1}, None],
            "kinds": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
        }
    )
    frame.write_parquet(tmp_path / "i.parquet")
    events = pl.DataFrame(schema=dict.fromkeys(("user", "item", "time", "stars"), pl.Int64))
    events.write_parquet(tmp_path / "e.parquet")
    assert read("parquet", [tmp_path / "e.parquet"], [tmp_path / "i.parquet"])[1] == [
        ("1", "2020-01-02", "x y", None, "1, 2"),
        ("2", None, None, None, "3, 4"),
    ]


def test_what_is_no_parquet_is_refused(tmp_path):
    assert "can't be read" in refusal("parquet", [write(tmp_path / "e.parquet", "PAR1 no")])


# Settings


def test_tables_need_the_names_of_their_columns(tmp_path):
    file = write(tmp_path / "e.csv", HEAD)
    assert refusal("csv", [file], columns=None).startswith("dataset.columns: missing")
    assert refusal("csv", [file], [file], item_columns=None).startswith("dataset.item_columns: missing")


def test_texts_that_are_not_there_are_null(tmp_path):
    file = write(tmp_path / "e.csv", f"{HEAD}u,i,1,2\n")
    bare = ItemColumns(item="item", title=None, description=None, brand=None, categories=None)
    assert read("csv", [file], [file], item_columns=bare)[1] == [("i", None, None, None, None)]


def test_collecting_says_which_files_and_lets_mistakes_of_the_program_through():
    with pytest.raises(InputError, match=r"^mine: can't be read \("), collecting("mine"):
        pl.LazyFrame({"a": ["x"]}).select(pl.col("a").cast(int)).collect()
    with pytest.raises(ZeroDivisionError), collecting("mine"):
        1 / 0  # noqa: B018


def test_the_configuration_of_the_tests_is_a_whole_one():
    assert config("csv", ["e.csv"]).columns == COLUMNS
