"""What was compared: a sentence, and the facts that make figures comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peso_cli.reports.page.html import Piece, foreign, tag
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.selection import Group

TITLE = "What was compared"

_CONSTRAINTS = {"trie": "real items only", "positional": "any code of the right level"}


def sentence(group: Group) -> str:
    """Say in one line what was compared."""
    methods = counted(len(group.variants), "method")
    seeds = f"seed{'s' * (len(group.seeds) > 1)} {', '.join(map(str, group.seeds))}"
    return f"{methods} on {group.dataset} with the backbone {group.backbone}, {group.span}, {seeds}."


def counted(number: int, thing: str) -> str:
    """Return a number with what it counts."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def build(subject: Subject) -> Section:
    """Return the section of a group."""
    group = subject.group
    facts = (tag("div", {}, tag("dt", {}, name), tag("dd", {}, *value)) for name, value in _facts(subject))
    alike = "Data, semantic IDs, protocol and prompt are the same for all methods."
    lead = f"Not all of this can be compared: {group.mixed}." if group.mixed else alike
    return Section(lead, (tag("dl", {"class": "facts"}, *facts),))


def _facts(subject: Subject) -> Iterator[tuple[str, Sequence[Piece]]]:
    group, record = subject.group, subject.newest
    protocol = record.protocol
    yield "methods", [piece for v in group.variants for piece in (foreign(v.name), ", ")][:-1]
    yield "test users", [", ".join(_users(group))]
    yield _search(protocol)
    yield "history", [f"up to {protocol.get('window')} items, prompt ", foreign(str(record.prompt.get("prompt.name")))]
    yield "recommended", ["items with events by then" if protocol.get("catalog") == "visible" else "all items"]
    yield "a hit is", ["an equal semantic ID"]
    yield "baseline", [foreign(group.baseline or "none")]


def _search(protocol: Mapping[str, Any]) -> tuple[str, Sequence[Piece]]:
    """Tell how recommendations are found: by a beam, or, by two-tower models, among all items."""
    top = protocol.get("top_k")
    if "seen" in protocol:
        return "ranking", [f"of all items, those that a user had {str(protocol['seen']).replace('_', ' ')}, top {top}"]
    constraint = _CONSTRAINTS.get(str(protocol.get("constraint")), "unknown")
    return "beam search", [f"{protocol.get('beams')} beams, {constraint}, top {top}"]


def _users(group: Group) -> Iterator[str]:
    """Yield how many test users each stage has."""
    records = {stage: record for v in group.variants for (_, stage), record in v.records.items()}
    for stage in group.stages:
        users = (records[stage].figures() or {}).get("users", "unknown")
        yield f"{users:,} (stage {stage})" if isinstance(users, int) else f"{users} (stage {stage})"
