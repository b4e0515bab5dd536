"""How far a language model's probability of its best recommendation is that of a hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.reports.analysis import measures
from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.stacking import stacked
from peso_cli.reports.averages import HIT, Take, compared
from peso_cli.reports.collected import Record
from peso_cli.reports.model import Column, Footnote, Table
from peso_cli.reports.selection import Variant

_BINS = 10

_FIFTHS = ("lowest fifth", "second fifth", "third fifth", "fourth fifth", "highest fifth")

_NOTES = (
    "confidence: the probability that the model gives to the semantic ID at rank 1, over the whole vocabulary: the "
    "product over its tokens and the end token, of which scores are the mean logarithm. What a model gives to "
    "sequences of no item is lost to it, so that one that has learnt little seems unsure. A hit is that semantic ID",
    "expected calibration error: the mean over users of |mean confidence - share of hits| of their bin (Guo et al., "
    "ICML 2017), in ten equally wide bins, and in ten bins of equally many users",
)

Figure = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
"""Works a figure out of (n,) confidences and whether they were hits."""


def build(evidence: Evidence) -> list[Table]:
    """Return how far methods are off, and what the bins of those whose scores are probabilities hold.

    Raises:
        InputError: the data can't be opened, or aren't what they were.
        RunError: predictions are damaged.
    """
    group = evidence.group
    ours = tuple(v for v in group.variants if evidence.by_semantic_id(v.any))
    others = [variant.name for variant in group.variants if variant not in ours]
    notes = [Footnote(text) for text in (*_NOTES, HIT)] if ours else []
    if others:
        text = "no probabilities, so that there is nothing to calibrate: the scores of " + "; ".join(others)
        notes.insert(0, Footnote(text))
    return [_errors(evidence).noting(*notes), *([_reliability(evidence, ours)] if ours else [])]


def _taking(evidence: Evidence, figure: Figure) -> Take:
    """Return what takes a figure of a record; None where its scores are no probabilities."""

    def take(record: Record) -> float:
        if not evidence.by_semantic_id(record):
            return np.nan
        predictions, levels = evidence.predictions(record), evidence.facts(record).catalog.levels
        said = np.exp(np.minimum(predictions.scores[:, 0] * (levels + 1), 0))
        return figure(said, predictions.ranks == 1)

    return evidence.taking(take)


def _errors(evidence: Evidence) -> Table:
    figures: dict[Column, Figure] = {
        Column("confidence", better="none"): lambda said, hit: float(said.mean()),
        Column("hits at rank 1", better="none"): lambda said, hit: float(hit.mean()),
        Column("ECE, equal widths", better="lowest"): partial(_error, measures.equal_widths),
        Column("ECE, equal counts", better="lowest"): partial(_error, measures.equal_counts),
    }
    takes = {column: _taking(evidence, figure) for column, figure in figures.items()}
    return compared(evidence.group, "calibration at rank 1", takes, absent=False)


def _error(
    bins: Callable[[NDArray[np.float64], int], NDArray[np.int64]], said: NDArray[np.float64], hit: NDArray[np.bool_]
) -> float:
    return measures.calibration_error(said, hit, bins(said, _BINS))


def _reliability(evidence: Evidence, variants: Sequence[Variant]) -> Table:
    """Return the numbers of a reliability diagram: what was said and what came of it, in fifths of the users."""
    parts = {name: _fifth(evidence, variants, number) for number, name in enumerate(_FIFTHS)}
    held = {name: part for name, part in parts.items() if any(row.cells[0].mean is not None for row in part.rows)}
    note = Footnote(
        "reliability: users in five equal parts by confidence; calibrated ones are equal to the share of hits"
    )
    return stacked(held or {_FIFTHS[0]: parts[_FIFTHS[0]]}, "confidence", parts[_FIFTHS[0]].title).noting(note)


def _fifth(evidence: Evidence, variants: Sequence[Variant], number: int) -> Table:
    def within(of: Callable[[NDArray[np.float64], NDArray[np.bool_]], NDArray[Any]]) -> Figure:
        def figure(said: NDArray[np.float64], hit: NDArray[np.bool_]) -> float:
            there = measures.equal_counts(said, len(_FIFTHS)) == number
            return float(of(said, hit)[there].mean()) if there.any() else np.nan

        return figure

    takes = {
        Column("confidence", better="none"): _taking(evidence, within(lambda said, hit: said)),
        Column("hits at rank 1", better="none"): _taking(evidence, within(lambda said, hit: hit)),
    }
    return compared(evidence.group, "reliability at rank 1", takes, variants, absent=False)
