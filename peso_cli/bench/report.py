"""Tables of what was measured, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

Document = Mapping[str, Any]


def tables(document: Document) -> list[Table | str]:
    """Return what to print for one bench's document, tables and lines."""
    return _KINDS[str(document["bench"])](document)


def _decode(document: Document) -> list[Table | str]:
    title = "decoding, {backbone}, {prompt}, {beams} beams, vocabulary of {vocabulary:,}"
    columns = ("ms a user", "spread", "GFLOP a user", "GFLOP/s", "x plain's best")
    table, ways = _table(title.format(**document), *columns), document["ways"]
    best = min(way["milliseconds_per_user"] for name, way in ways.items() if name.startswith("plain"))
    for name, way in ways.items():
        row = [f"{way['milliseconds_per_user']:.2f}", f"{way['spread']:.0%}", f"{way['gflop_per_user']:.3f}"]
        table.add_row(name, *row, f"{way['gflop_per_second']:.0f}", f"{best / way['milliseconds_per_user']:.1f}")
    lines = [_equal(name, equal) for name, equal in document["equal"].items()]
    return [
        table,
        *lines,
        _memory(document),
        _setting(document, f"{document['users']} users, {document['timed']} of them timed in the plain way"),
    ]


def _equal(name: str, equal: Document) -> str:
    kinds = ("identical", "near ties swapped", "different")
    counted = ", ".join(f"{equal[kind]} {kind}" for kind in kinds)
    difference = equal["largest_score_difference"]
    return f"{name}: lists of {equal['compared']} users: {counted}; scores differ by at most {difference:.1e}"


def _train(document: Document) -> list[Table | str]:
    title = "training, {backbone}, {prompt}, stage {stage}, vocabulary of {vocabulary:,}"
    columns = ("ms an example", "spread", "tokens", "GFLOP", "GFLOP/s", "faster than")
    table = _table(title.format(**document), *columns)
    ways = document["ways"]
    for name, way in ways.items():
        row = [f"{way['milliseconds_per_example']:.2f}", f"{way['spread']:.0%}", f"{way['tokens_per_example']:.1f}"]
        row += [f"{way['gflop_per_example']:.3f}", f"{way['gflop_per_second']:.0f}"]
        table.add_row(name, *row, f"{way['milliseconds_per_example'] / ways['peso']['milliseconds_per_example']:.1f}x")
    equal, ours = document["equal"], ways["peso"]
    floor = 1e12 * ours["gflop_per_example"] / document["matrix_rate"]
    lines = [
        f"equal: loss differs by {equal['relative_loss_difference']:.1e} (relative), gradients of "
        f"{equal['parameters']} parameters have cosines of at least {equal['lowest_gradient_cosine']:.8f}",
        f"floor: {floor:.2f} ms an example, its products at the rate of a large matrix product "
        f"({document['matrix_rate'] / 1e9:.0f} GFLOP/s); peso takes "
        f"{ours['milliseconds_per_example'] / floor:.2f} times that",
        f"batches of {document['batch_tokens']} tokens are filled to {document['fill']:.1%}",
    ]
    return [table, *lines, _memory(document), _setting(document, f"{document['examples']} examples")]


def _regularizer(document: Document) -> list[Table | str]:
    title = "penalties, {backbone}, {factors} factors of {parameters:,} parameters, steps of {batch_tokens} tokens"
    table = _table(title.format(**document), "ms", "spread", "of a step")
    for name, way in document["ways"].items():
        table.add_row(name, f"{way['milliseconds']:.2f}", f"{way['spread']:.0%}", f"{way['share']:.2%}")
    errors = [
        f"{size}: value {error['value']:.1e}, gradient {error['gradient']:.1e}"
        for size, error in document["softmax_kl_error"].items()
    ]
    return [table, "softmax_kl against float64, by relative step: " + "; ".join(errors), _setting(document, "")]


def _growth(document: Document) -> list[Table | str]:
    table = _table("growth, {backbone}, {beams} beams".format(**document), "ms a user", "more memory at the peak")
    for users, milliseconds in document["milliseconds_per_user_by_users"].items():
        table.add_row(
            f"{int(users):,} users", f"{milliseconds:.2f}", _megabytes(document["peak_bytes_by_users"][users])
        )
    lines: list[Table | str] = [table]
    items = _table("items", "ms a user", "trie built in s", "bytes an item", "ms for the last step's children")
    for count, milliseconds in document["milliseconds_per_user_by_items"].items():
        trie = document["trie"][count]
        row = [f"{trie['build_seconds']:.2f}", f"{trie['bytes_per_item']:.1f}", f"{trie['step_milliseconds']:.2f}"]
        items.add_row(f"{int(count):,} items", f"{milliseconds:.2f}", *row)
    return [*lines, items, _setting(document, "")]


def _memory(document: Document) -> str:
    memory = document["memory_at_batch"]
    plain, ours = _megabytes(memory["plain"]), _megabytes(memory["peso"])
    return f"memory at the peak with {memory['batch']} at once: plain {plain}, peso {ours}"


def _data(document: Document) -> list[Table | str]:
    title = "building stages, {users:,} users, {items:,} items, {threads} threads"
    table = _table(title.format(**document), "seconds", "at the peak", "stages")
    for rows, size in document["sizes"].items():
        stages = str(len(size["stages"]))
        table.add_row(f"{int(rows):,} rows", f"{size['seconds']:.1f}", _megabytes(size["peak_bytes"]), stages)
    return [table]


def _tokenize(document: Document) -> list[Table | str]:
    title = "quantizers, {rows:,} embeddings of width {width}, {threads} threads"
    columns = ("s to fit", "s to encode", "at the peak", "codes used at least", "share a semantic ID", "error")
    table = _table(title.format(**document), *columns)
    for name, way in document["ways"].items():
        row = [f"{way['seconds']:.1f}", f"{way['encode_seconds']:.1f}", _megabytes(way["peak_bytes"])]
        row += [f"{min(way['codes_used']):.1%}", f"{way['sharing']:.2%}", f"{way['reconstruction_error']:.3f}"]
        table.add_row(f"{name}, {way['levels']} x {way['codes']}", *row)
    return [table]


def _tracking(document: Document) -> list[Table | str]:
    title = "tracking, {backbone}, up to stage {stage}".format(**document)
    table = _table(title, "s a run", "spread", "more", "processor s", "more")
    for name, way in document["ways"].items():
        own = (f"{way['median']:.2f}", f"{way['spread']:.0%}", f"{way['more']:+.1%}")
        table.add_row(name, *own, f"{way['processor_median']:.2f}", f"{way['processor_more']:+.1%}")
    return [table, _setting(document, "")]


def _megabytes(count: int | None) -> str:
    return "not known" if count is None else f"{count / 2**20:,.0f} MB"


def _setting(document: Document, what: str) -> str:
    parts = [what, f"{document['repeats']} repeats in turns", f"medians, {document['threads']} threads"]
    return ", ".join(part for part in parts if part)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


_KINDS = {
    "decode": _decode,
    "train": _train,
    "regularizer": _regularizer,
    "growth": _growth,
    "data": _data,
    "tokenize": _tokenize,
    "tracking": _tracking,
}
