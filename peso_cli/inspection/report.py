"""An inspection as tables and sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

Document = Mapping[str, Any]

_ROUGH = 0.05
"""Residual of a direction, as a share of its support, above which people are told."""


def report(document: Document) -> list[Table | str]:
    """Return what to print: how each module moved, and what the directions of strongest support say."""
    return [_movement(document), _directions(document), *_sentences(document["support"])]


def short_name(module: str) -> str:
    """Return a module's name without the wrappers that all of them share."""
    return module.removeprefix("base_model.model.").removeprefix("model.")


def _movement(document: Document) -> Table:
    title = "{method}, stage {stage}: how its adapter moved since {since}".format(**document)
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("module")
    for column in ("dA", "dB", "d(BA)", "angle A", "angle B", "angle BA", "KL A", "KL B", "penalty"):
        table.add_column(column, justify="right")
    for name, m in document["movement"]["modules"].items():
        lengths = [_length(m[part]) for part in ("A", "B", "BA")]
        angles = [_number(max(angles, default=None)) for angles in (m["A"]["angles"], m["B"]["angles"])]
        kl = [_number(m[part]["softmax_kl"]) for part in ("A", "B")]
        table.add_row(short_name(name), *lengths, *angles, _number(m["BA"]["angle"]), *kl, _number(m["penalty"]))
    total = document["movement"]["total"]
    table.add_section()
    lengths = [_length(total[part]) for part in ("A", "B", "BA")]
    kl = [_number(total[part]["softmax_kl"]) for part in ("A", "B")]
    table.add_row("all", *lengths, "", "", "", *kl, _number(total["penalty"]))
    table.caption = (
        "Lengths (Frobenius norms) as a share of the length before, where there is one; the largest principal "
    )
    table.caption += (
        f"angles in degrees; KL of softmaxes at strength 1; penalty: regularizer={document['regularizer']}."
    )
    return table


def _length(part: Document) -> str:
    return _number(part["moved"]) if part["relative"] is None else f"{part['relative']:.2%}"


def _directions(document: Document) -> Table:
    support = document["support"]
    title = "the directions for which {examples} examples ({labels} label tokens) speak most".format(**support)
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in ("", "support", "moved", "loss's own step", "followed", "predicted"):
        table.add_column(column, justify="right")
    for number, row in enumerate(support["directions"], start=1):
        cells = [_number(row[name]) for name in ("support", "moved", "newton", "followed", "predicted")]
        table.add_row(str(number), *cells)
    table.caption = (
        "followed: moved / the loss's own step; predicted: support / (support + pull), by PESO's Proposition 1"
    )
    pull = support["pull"]
    table.caption += " (this regularizer has no such form)." if pull is None else f" with pull {_number(pull)}."
    return table


def _sentences(support: Document) -> list[str]:
    lines = []
    if (support["largest_residual"] or 0) > _ROUGH:
        lines.append(
            f"The weakest of these directions are rough ones after {support['products']} products; ask for fewer."
        )
    if support["followed"] is not None:
        line = f"Together these directions were followed by {support['followed']:.2f} of what the loss alone asks"
        predicted = support["predicted"]
        lines.append(line + ("." if predicted is None else f"; predicted {predicted:.2f}."))
    if support["spearman"] is not None:
        lines.append(f"Rank correlation of support and share followed: {support['spearman']:.2f}.")
    if support["share_of_movement"] is not None:
        ratio = support["moved_per_direction"] / support["moved_per_random_direction"]
        lines.append(
            f"They hold {support['share_of_movement']:.2%} of the movement: along each the adapter moved {ratio:.1f} "
            f"times as far as along a random one of all {support['dimensions']:,} directions."
        )
    return [*lines, *_typical(support)]


def _typical(support: Document) -> list[str]:
    """Say how well the data support the movement as a whole, beside a direction drawn at random."""
    random, moved, pull = (support[name] for name in ("support_of_random_direction", "support_of_movement", "pull"))
    if moved is None:
        return []
    line = f"A random direction has support {_number(random)}"
    line += f" (predicted to be followed by {random / (random + pull):.2f})" if pull else ""
    return [f"{line}; the movement as a whole has {_number(moved)}."]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
