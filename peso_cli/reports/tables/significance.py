"""Whether methods differ from the baseline: the paired bootstrap over users and seeds, corrected for many tests."""

from __future__ import annotations

from collections.abc import Mapping

from peso_cli.evaluation.pairing import UserFigures, paired, per_user
from peso_cli.evaluation.significance import Comparison, corrected_family, paired_bootstrap
from peso_cli.reports.averages import HIT, ITEM_HIT, figure_names
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.model import Cell, Column, Footnote, Row, Table
from peso_cli.reports.selection import Group, Variant

NEEDS = "a --baseline and another method that share a seed with all stages, in the protocol they were trained with"

Runs = Mapping[int, UserFigures]

COLUMNS = (
    Column("difference", "+.4f"),
    Column("95 % from", "+.4f", "none"),
    Column("to", "+.4f", "none"),
    Column("p", ".4f", "none"),
    Column("p (Holm)", ".4f", "none"),
    Column("users", ",.0f", "none"),
    Column("seeds", ".0f", "none"),
)
"""What `comparison_row` fills."""


def build(group: Group) -> list[Table]:
    """Return a table for the figure at the largest K of Recall and of NDCG.

    Raises:
        InputError: two runs scored different users.
        RunError: predictions can't be read.
    """
    return differences(group)


def differences(group: Group, item: bool = False) -> list[Table]:
    """Return the tables of `build`; with `item`, a hit is the item itself.

    Raises:
        InputError: two runs scored different users.
        RunError: predictions can't be read.
    """
    runs = {variant.name: _runs(group, variant) for variant in group.variants}
    baseline = runs.pop(group.baseline, {})
    others = {name: found for name, found in runs.items() if found.keys() & baseline.keys()}
    if not others:
        return []
    return [_table(group, figure, others, baseline, item) for figure in last_of_each_kind(figure_names(group))]


def _runs(group: Group, variant: Variant) -> Runs:
    """Return the figures of each user, of the seeds that have all stages."""
    found = {}
    for seed in group.seeds:
        records = [variant.records.get((seed, stage)) for stage in group.stages]
        if all(record is not None and record.own for record in records):
            found[seed] = per_user([record.folder / "predictions.parquet" for record in records if record is not None])
    return found


def _table(group: Group, figure: str, others: Mapping[str, Runs], baseline: Runs, item: bool) -> Table:
    taken = f"item.{figure}" if item else figure
    compared = {name: _compare(runs, baseline, taken) for name, runs in others.items()}
    holm = corrected_family({name: comparison.p_value for name, comparison in compared.items()})
    rows = tuple(comparison_row(name, comparison, holm[name]) for name, comparison in compared.items())
    title = f"{group.title}: {figure} against {group.baseline}, test users, mean over {group.span}"
    return Table(title, "method", COLUMNS, rows).noting(
        Footnote("paired bootstrap, 10,000 resamples of users within stages and, where there are several, of seeds"),
        Footnote(
            "p (Holm): corrected for the number of methods in the table; one seed tells nothing of how seeds vary"
        ),
        Footnote(ITEM_HIT if item else HIT),
    )


def _compare(runs: Runs, baseline: Runs, figure: str) -> Comparison:
    """Compare on the seeds that both have."""
    seeds = runs.keys() & baseline.keys()
    differences = paired({seed: runs[seed] for seed in seeds}, {seed: baseline[seed] for seed in seeds})
    return paired_bootstrap(differences.figures[figure], strata=differences.stages)


def comparison_row(name: str, comparison: Comparison, holm: float) -> Row:
    """Return the row of a comparison, with its p-value corrected for all in the table."""
    values = (comparison.mean, comparison.low, comparison.high, comparison.p_value, holm)
    return Row(name, tuple(Cell(value, count=1) for value in (*values, comparison.users, comparison.seeds)))
