"""Where every figure comes from: the command that trains it, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peso_cli.artifacts import Artifact
from peso_cli.reports.collected import Record
from peso_cli.reports.filling import train_command
from peso_cli.reports.page import tables
from peso_cli.reports.page.html import Html, Piece, code, folded, foreign, tag
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.selection import Group, Variant

TITLE = "Commands and lineage"

_SHORT = 12
"""Signs of a digest that are shown; all of them are there on demand."""

_HEADS = ("seed, stage", "fingerprint", "made from", "data", "semantic IDs", "git commit", "versions")


def build(subject: Subject) -> Section:
    """Return the section of a group.

    Raises:
        RunError: a lineage is damaged.
    """
    group = subject.group
    lead = (
        "The commands that train each method anew, and the digests of what its stages were made of: equal "
        "fingerprints are equal settings, data and ancestors."
    )
    bases = _bases(group)
    parts = [_variant(group, variant) for variant in group.variants]
    if bases:
        parts.append(folded("stage 1, from which all begin", _digests("stage 1", bases)))
    return Section(lead, tuple(parts))


def _bases(group: Group) -> list[Record]:
    """Return the records of stage 1 that any variant began from, one for each folder."""
    found = (group.base_of(variant, seed) for variant in group.variants for seed in group.seeds)
    return list({base.folder: base for base in found if base is not None}.values())


def _variant(group: Group, variant: Variant) -> Html:
    records = [record for _, record in sorted(variant.records.items())]
    last = {record.place.seed: record for record in records}
    commands = "\n".join(str(train_command(r, seed, r.place.stage)) for seed, r in last.items())
    return folded(variant.name, tag("pre", {}, code(commands)), _digests(f"{group.title}: {variant.name}", records))


def _digests(caption: str, records: Sequence[Record]) -> Html:
    rows = [_row(record, Artifact(record.folder).lineage()) for record in records]
    return tables.grid(caption, _HEADS, rows)


def _row(record: Record, lineage: Mapping[str, Any]) -> list[Piece]:
    versions = ", ".join(f"{name} {version}" for name, version in lineage.get("versions", {}).items())
    data = lineage["data"].get("blocks", {}).get(str(record.place.stage))
    return [
        f"{record.place.seed}, {record.place.stage}",
        _digest(record.fingerprint),
        _digest(record.parent),
        _digest(data),
        _digest(record.catalog),
        _digest(lineage.get("git_commit")),
        foreign(versions or "not recorded"),
    ]


def _digest(value: str | None) -> Piece:
    if not value:
        return "\N{EN DASH}"
    return value if len(value) <= _SHORT else tag("abbr", {"title": value}, code(value[:_SHORT]))
