"""All methods by Recall and NDCG."""

from __future__ import annotations

from peso_cli.reports.averages import averaged, figure_names, figure_of, over, reference_rows
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.page import tables
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.selection import Group
from peso_cli.reports.tables import main

TITLE = "Results"


def build(subject: Subject) -> Section:
    """Return the section of a group."""
    group = subject.group
    shown = tuple(tables.figures(table) for table in main.build(group))
    lead = (
        f"{_best(group)} The best figure of a column is bold, the second underlined; popularity and, where the world "
        "is generated, the best attainable figures are there for scale."
    )
    return Section(lead, shown, (subject.again("tables", "main"),))


def _best(group: Group) -> str:
    """Say which method has the highest figure, and how far it is from the baseline."""
    name = last_of_each_kind(figure_names(group))[-1]
    found = {variant.name: averaged(group, variant, figure_of(name)).mean for variant in group.variants}
    means = {method: mean for method, mean in found.items() if mean is not None}
    if not means:
        return f"No method has all of {group.span} yet."
    best = max(means, key=lambda method: means[method])
    text = f"Highest {name} of a method, {over(group)}: {best} with {means[best]:.4f}"
    theirs = means.get(group.baseline)
    if best != group.baseline and theirs:
        text += f", {100 * (means[best] / theirs - 1):+.1f} % over {group.baseline}"
    return f"{text}{_beside_popularity(group, name)}."


def _beside_popularity(group: Group, name: str) -> str:
    """Say what recommending the most popular items alone would reach."""
    found = [row.cells[0].mean for row in reference_rows(group, [name]) if row.name == "popularity"]
    return f"; popularity alone reaches {found[0]:.4f}" if found and found[0] is not None else ""
