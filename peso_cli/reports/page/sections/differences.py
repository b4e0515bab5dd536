"""Where methods differ: whose hits they share, and whom they serve worst."""

from __future__ import annotations

from peso_cli.errors import InputError
from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.sections import fairness, overlap
from peso_cli.reports.model import Table
from peso_cli.reports.page import tables
from peso_cli.reports.page.html import folded
from peso_cli.reports.page.section import Section, Subject

TITLE = "Where methods differ"


def build(subject: Subject) -> Section:
    """Return the section of a group.

    Raises:
        RunError: predictions are damaged.
    """
    evidence, shown, left_out = Evidence(subject.group), list[Table](), list[str]()
    for name, section in (("Overlap", overlap), ("Fairness", fairness)):
        try:
            shown += section.build(evidence)
        except InputError as error:
            left_out.append(f"{name} is left out: {error}.")
    lead = (
        "Whose hits two methods share, and what a perfect choice between them would reach; whom each method serves "
        "worst, and how unequally it shows the catalog. The command shows more (by activity, history, popularity, age "
        "and drift, calibration, coverage), and backbones side by side."
    )
    by_stage = [table for table in shown if table.title.endswith("by stage")]
    parts = [tables.figures(table) for table in shown if table not in by_stage]
    parts += [folded("Stage by stage", tables.figures(table)) for table in by_stage]
    return Section(" ".join((lead, *left_out)), tuple(parts), (subject.again("analyse"),))
