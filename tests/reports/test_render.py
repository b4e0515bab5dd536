import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from peso_cli.reports.model import Cell, Column, Footnote, Gap, Row, Table, cell_of
from peso_cli.reports.render import DASH, TEXTS, as_csv, as_json, escape_latex, escape_markdown, latex, markdown, show

TABLE = Table(
    "a title",
    "method",
    (Column("ndcg@5"), Column("gain %", "+.2f", "none"), Column("bytes", ",.0f", "lowest")),
    (
        Row("peso_1", (Cell(0.25, 0.01, 2, "best"), Cell(-3.5, count=1), Cell(1234.0, count=1))),
        Row("a & b", (Cell(0.125, count=1, mark="second"), Cell(missing="why"), Cell(5.0, count=1, mark="best"))),
        Row("popularity", (Cell(), Cell(), Cell()), ranked=False),
    ),
    (Footnote("a note"), Footnote("missing: x", Gap("train", ("a=[1,2]",), Path("mine")))),
)

names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=30)
tricky = st.text("\\{}$&#%_~^<>|`'\"-*[]()!+.±é a" + DASH, min_size=1, max_size=20)
values = st.floats(-1e6, 1e6)
cells = st.one_of(st.builds(Cell, missing=names), st.lists(values, min_size=1, max_size=3).map(cell_of))


@st.composite
def tables(draw):
    """Tables of any names and figures."""
    columns = draw(st.lists(names | tricky, min_size=1, max_size=3, unique_by=lambda name: " ".join(name.split())))
    rows = draw(st.lists(st.tuples(names | tricky, st.lists(cells, min_size=len(columns), max_size=len(columns)))))
    table = Table(
        draw(names | tricky),
        "method",
        tuple(map(Column, columns)),
        tuple(Row(name, tuple(found)) for name, found in rows),
        tuple(map(Footnote, draw(st.lists(names | tricky, max_size=2)))),
    )
    return table.marked()


# How it looks


def test_markdown():
    assert markdown([TABLE]) == (
        "**a title**\n"
        "\n"
        "| method | ndcg@5 | gain % | bytes |\n"
        "| :-- | --: | --: | --: |\n"
        "| peso\\_1 | **0.2500 ± 0.0100** | -3.50 | 1,234 |\n"
        f"| a \\& b | <u>0.1250</u> | {DASH} | **5** |\n"
        f"| popularity | {DASH} | {DASH} | {DASH} |\n"
        "\n"
        "- a note\n"
        "- missing: x: `peso train 'a=[1,2]' --config-dir mine`\n"
    )


def test_latex():
    text = latex([TABLE])
    assert r"\begin{tabular}{lrrr}" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"peso\_1 & \textbf{0.2500 $\pm$ 0.0100} & $-$3.50 & 1,234 \\" in text
    assert r"a \& b & \underline{0.1250} & \textendash{} & \textbf{5} \\" in text
    assert r"\texttt{peso train \textquotesingle{}a=[1,2]\textquotesingle{} -{}-config-dir mine}" in text


def test_terminal():
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    show([TABLE], console)
    text = console.file.getvalue()
    assert re.search(r"\x1b\[1m *0\.2500 ± 0\.0100", text)
    assert re.search(r"\x1b\[4m *0\.1250", text)
    assert "missing: x: peso train 'a=[1,2]' --config-dir mine" in text


def test_csv_has_spread_only_where_there_are_several_seeds():
    records = list(csv.DictReader(io.StringIO(as_csv([TABLE]))))
    assert records[0] == {
        "table": "a title",
        "method": "peso_1",
        "ndcg@5": "0.25",
        "ndcg@5 std": "0.01",
        "ndcg@5 seeds": "2",
        "gain %": "-3.5",
        "bytes": "1234.0",
    }
    assert records[2]["ndcg@5"] == ""


# Whatever the names


def unescaped_markdown(text):
    return re.sub(r"\\([\\`*_\[\]<>|~&$])", r"\1", text)


@given(names | tricky)
def test_markdown_reads_back(name):
    escaped = escape_markdown(name)
    assert unescaped_markdown(escaped) == " ".join(name.split())
    assert not re.search(r"[`*_\[\]<>|~&$]", re.sub(r"\\.", "", escaped))


@given(names | tricky)
def test_latex_reads_back(name):
    words = {
        "textbackslash{}": "\\",
        "textasciitilde{}": "~",
        "textasciicircum{}": "^",
        "textless{}": "<",
        "textgreater{}": ">",
        "textbar{}": "|",
        "textasciigrave{}": "`",
        "textquotesingle{}": "'",
        "textendash{}": DASH,
    }
    escaped = escape_latex(name)
    plain = escaped.replace(r"$\pm$", "±")
    read = re.sub(r"\\([a-z]+\{\}|[{}$&#%_])|-\{\}", lambda m: "-" if m[1] is None else words.get(m[1], m[1]), plain)
    assert read == " ".join(name.split())
    assert "--" not in escaped
    assert not re.search(r"[#%&_^~<>|$]", re.sub(r"\\[a-z]+\{\}|\\.", "", plain))


@settings(max_examples=40, deadline=None)
@given(tables())
def test_markdown_and_latex_have_a_line_for_each_row_and_a_field_for_each_column(table):
    lines = [line for line in markdown([table]).split("\n") if line.startswith("|")]
    assert [len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [len(table.columns) + 3] * (
        2 + len(table.rows)
    )
    body = latex([table]).split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert [len(re.split(r"(?<!\\)&", line)) for line in body.splitlines()] == [len(table.columns) + 1] * len(
        table.rows
    )


@settings(max_examples=40, deadline=None)
@given(tables())
def test_json_reads_back_whole(table):
    (found,) = json.loads(as_json([table]))["tables"]
    rows = [Row(r["name"], tuple(Cell(**c) for c in r["cells"].values()), r["ranked"]) for r in found["rows"]]
    columns = [Column(**column) for column in found["columns"]]
    read = Table(found["title"], found["head"], tuple(columns), tuple(rows))
    assert read.noting(*table.footnotes) == table
    assert found["footnotes"] == [{"text": note.text, "command": note.command} for note in table.footnotes]


@settings(max_examples=40, deadline=None)
@given(tables(), tables())
def test_csv_reads_back_in_full(first, second):
    records = iter(csv.DictReader(io.StringIO(as_csv([first, second]), newline="")))
    for table in (first, second):
        for row in table.rows:
            record = next(records)
            assert (record["table"], record[table.head]) == (table.title, row.name)
            for column, cell in zip(table.columns, row.cells, strict=True):
                assert record[column.name] == ("" if cell.mean is None else repr(cell.mean))
    assert next(records, None) is None


@settings(max_examples=25, deadline=None)
@given(tables())
def test_the_terminal_shows_names_as_they_are(table):
    console = Console(file=io.StringIO(), width=400)
    show([table], console)
    assert len([line for line in console.file.getvalue().splitlines() if line[:1] == "│"]) >= len(table.rows)


# Marks and cells


def marks(*values, better="highest", ranked=True):
    rows = tuple(Row(str(n), (Cell(value),), ranked) for n, value in enumerate(values))
    return [row.cells[0].mark for row in Table("", "", (Column("c", better=better),), rows).marked().rows]


def test_the_best_and_the_second_are_marked_and_equals_alike():
    assert marks(1.0, 3.0, None, 2.0) == ["", "best", "", "second"]
    assert marks(1.0, 3.0, 3.0, 2.0) == ["", "best", "best", "second"]
    assert marks(1.0, 3.0, 2.0, better="lowest") == ["best", "", "second"]
    assert marks(1.0, 3.0, better="none") == ["", ""]
    assert marks(1.0, None) == ["", ""]
    assert marks(1.0, 2.0, ranked=False) == ["", ""]


def test_a_cell_is_mean_and_sample_deviation_over_seeds():
    assert cell_of([1.0, 3.0]) == Cell(2.0, 2**0.5, 2)
    assert cell_of([1.0]) == Cell(1.0, None, 1)
    assert cell_of([], "why") == Cell(missing="why")


@pytest.mark.parametrize("form", TEXTS)
def test_no_tables_at_all_are_still_a_document(form):
    assert TEXTS[form]([]).endswith("\n")
