"""The page as a whole: what it is made of, in which order, and the frame around it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files

from peso_cli import __version__
from peso_cli.errors import InputError, RunError
from peso_cli.reports.page.html import Html, code, folded, foreign, tag
from peso_cli.reports.page.section import Explain, Section, Subject
from peso_cli.reports.page.sections import (
    cost,
    differences,
    drift,
    forgetting,
    groups,
    headline,
    lineage,
    samples,
    significance,
    stages,
    strength,
    summary,
    training,
)
from peso_cli.reports.selection import Group

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_FEW = 3
"""Commands that stand where a section has nothing to show; more of them are folded."""

Build = Callable[[Subject], Section]

_SECTIONS: dict[str, tuple[str, Build]] = {
    "summary": (summary.TITLE, summary.build),
    "results": (headline.TITLE, headline.build),
    "significance": (significance.TITLE, significance.build),
    "stages": (stages.TITLE, stages.build),
    "groups": (groups.TITLE, groups.build),
    "differences": (differences.TITLE, differences.build),
    "forgetting": (forgetting.TITLE, forgetting.build),
    "strength": (strength.TITLE, strength.build),
    "training": (training.TITLE, training.build),
    "cost": (cost.TITLE, cost.build),
    "drift": (drift.TITLE, drift.build),
    "samples": (samples.TITLE, samples.build),
    "lineage": (lineage.TITLE, lineage.build),
}
"""Sections in their order: what their ids end in, their headings, and what builds them."""


def document(
    groups: Sequence[Group],
    request: Sequence[str],
    left_out: Sequence[str],
    warn: Callable[[str], None],
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
    explain: Explain | None = None,
) -> str:
    """Return the page of some groups.

    Args:
        groups: what is shown.
        request: filters and options that chose it, as words of a command.
        left_out: what was left out, a line each.
        warn: called with a line for each section that can't be shown.
        tick: called with (done, total, what comes next) before each section.
        explain: tells what carried the sample recommendations; None leaves that out.
    """
    subjects = [Subject(group, f"g{number}", tuple(request), explain) for number, group in enumerate(groups, start=1)]
    total = len(subjects) * len(_SECTIONS)
    begun = itertools.count()
    bodies = [_group(subject, warn, lambda title: tick(next(begun), total, title)) for subject in subjects]
    header = tag("header", {}, tag("h1", {}, "Continual recommendation"), *_summary(groups), _contents(subjects))
    page = tag(
        "html", {"lang": "en"}, _head(groups), tag("body", {}, header, tag("main", {}, *bodies), _footer(left_out))
    )
    return f"<!DOCTYPE html>\n{page.markup}\n"


def _head(groups: Sequence[Group]) -> Html:
    title = f"Continual recommendation: {'; '.join(group.title for group in groups)}"
    return tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        # Without one, browsers would ask the server for an icon.
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("title", {}, title),
        Html(f"<style>{style()}</style>"),
    )


def style() -> str:
    """Return the page's style sheet."""
    return (files(__package__) / "style.css").read_text(encoding="utf-8")


def _summary(groups: Sequence[Group]) -> Iterator[Html]:
    for group in groups:
        yield tag("p", {"class": "summary"}, summary.sentence(group))


def _contents(subjects: Sequence[Subject]) -> Html:
    lists = []
    for subject in subjects:
        links = (tag("a", {"href": f"#{subject.anchor}-{end}"}, title) for end, (title, _) in _SECTIONS.items())
        name = [tag("p", {}, subject.group.title)] if len(subjects) > 1 else []
        lists += [*name, tag("ul", {}, *(tag("li", {}, link) for link in links))]
    return tag("nav", {"aria-label": "Contents"}, *lists)


def _group(subject: Subject, warn: Callable[[str], None], begin: Callable[[str], None]) -> Html:
    names = {"class": "group", "aria-labelledby": subject.anchor}
    heading = tag("h2", {"id": subject.anchor}, foreign(subject.group.title))
    parts = []
    for end, (title, build) in _SECTIONS.items():
        begin(title)
        parts.append(_section(subject, end, title, build, warn))
    return tag("article", names, heading, *parts)


def _section(subject: Subject, end: str, title: str, build: Build, warn: Callable[[str], None]) -> Html:
    section, anchor = _built(subject, title, build, warn), f"{subject.anchor}-{end}"
    lead = tag("p", {"class": "lead" if section.parts else "lead nothing"}, section.lead)
    heading = tag("h3", {"id": anchor}, title)
    return tag("section", {"aria-labelledby": anchor}, heading, lead, *section.parts, *_commands(section))


def _built(subject: Subject, title: str, build: Build, warn: Callable[[str], None]) -> Section:
    """Return a section; where what it is made of is damaged, it says so, and the others are shown all the same."""
    try:
        return build(subject)
    except (InputError, RunError) as error:
        warn(f"{subject.group.title}, {title}: {error}")
        return Section(f"This can't be shown: {error}.")


def _commands(section: Section) -> Iterator[Html]:
    """Yield the commands of a section: folded, but for the first few of those that fill one with nothing to show."""
    first, more = ((), section.commands) if section.parts else (section.commands[:_FEW], section.commands[_FEW:])
    if first:
        yield _listing(first)
    if more:
        yield folded("The command behind it" if section.parts else f"{len(more)} more", _listing(more))


def _listing(commands: Sequence[str]) -> Html:
    return tag("pre", {}, code("\n".join(commands)))


def _footer(left_out: Sequence[str]) -> Html:
    lines = [tag("p", {}, line) for line in left_out]
    made = f"Made by peso {__version__} from finished runs alone; equal runs give an equal file."
    return tag("footer", {}, *lines, tag("p", {}, made))
