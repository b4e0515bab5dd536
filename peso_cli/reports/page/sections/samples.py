"""What a few users were recommended: hits and misses, the same users for every method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peso_cli.errors import InputError, RunError
from peso_cli.reports.averages import unfilled
from peso_cli.reports.collected import Record
from peso_cli.reports.page import tables
from peso_cli.reports.page.html import Html, Piece, foreign, joined, tag
from peso_cli.reports.page.section import Carried, Explain, Section, Subject
from peso_cli.reports.selection import Group

TITLE = "Sample recommendations"
_CARRIED = (
    "Below stand the items of the history without which the score of a method's first recommendation (of a language "
    "model the log-likelihood of its semantic ID) falls most; below 0, they spoke against it."
)

_Owed = Sequence[Carried] | str
"""What carried a recommendation, or why that isn't known."""

_EACH = 2
"""Users whom all methods serve, whom some do, and whom none does."""

_SHOWN = 5
"""Recommendations of each method, and latest items of each user."""


@dataclass(frozen=True, eq=False)
class _Served:
    """The predictions of a method at the last stage, by user."""

    rows: Mapping[str, Mapping[str, Any]]

    def rank(self, user: str) -> int | None:
        """Return the rank at which a user was served."""
        rank: int | None = self.rows[user]["rank"]
        return rank


def build(subject: Subject) -> Section:
    """Return the section of a group.

    Raises:
        RunError: predictions can't be read.
    """
    group, stage = subject.group, subject.group.stages[-1]
    records = _last(group)
    found = {name: _Served(_read(record)) for name, record in records.items()}
    users = _chosen(list(found.values()))
    if not users:
        commands = tuple(note.command for note in unfilled(group, group.variants))
        return Section(f"This needs methods that scored the same users of stage {stage}.", (), commands)
    titles, latest, why = _names(subject, stage)
    lead = (
        f"Some test users of stage {stage}: such as all methods serve, such as some do, and such as none does. "
        f"The first {_SHOWN} recommendations are shown; a hit is an equal semantic ID, so that another item may stand "
        f"in its place. {why}"
    )
    if subject.explain is None:
        shown = tuple(_user(user, found, titles, latest) for user in users)
        return Section(lead, shown, (subject.again("report", "--why"),))
    carried = {name: _carried(subject.explain, record, found[name], users) for name, record in records.items()}
    parts = ((_user(user, found, titles, latest), _carriers(user, carried, titles)) for user in users)
    return Section(f"{lead} {_CARRIED}", tuple(joined(pair) for pair in parts))


def _carried(explain: Explain, record: Record, served: _Served, users: Sequence[str]) -> Mapping[str, _Owed]:
    """Return for each user what carried a method's first recommendation; why it isn't known, where it isn't."""
    first = {user: item for user in users if (item := served.rows[user]["items"][0]) is not None}
    try:
        return {**dict.fromkeys(users, "no item"), **explain(record, first)}
    except (InputError, RunError) as error:
        return dict.fromkeys(users, f"not known: {error}")


def _last(group: Group) -> dict[str, Record]:
    """Return the methods' records of the last stage, of the first seed that most of them have."""
    own = {v.name: {s: r for (s, stage), r in v.records.items() if stage == group.stages[-1]} for v in group.variants}
    seed = max(group.seeds, key=lambda seed: sum(seed in records for records in own.values()))
    return {name: records[seed] for name, records in own.items() if seed in records}


def _read(record: Record) -> dict[str, dict[str, Any]]:
    """Return predictions by user."""
    import pyarrow.parquet as pq

    path = record.folder / "predictions.parquet"
    try:
        rows: list[dict[str, Any]] = pq.read_table(
            path, columns=["user", "target", "items", "rank", "group"]
        ).to_pylist()
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    return {row["user"]: row for row in rows}


def _chosen(found: Sequence[_Served]) -> list[str]:
    """Return users whom all methods serve, whom some do, and whom none does, in the order of the file."""
    shared = [user for user in found[0].rows if all(user in table.rows for table in found)]
    hits = {user: sum(table.rank(user) is not None for table in found) for user in shared}
    kinds = ([u for u in shared if hits[u] == len(found)], [u for u in shared if 0 < hits[u] < len(found)])
    return [user for kind in (*kinds, [u for u in shared if not hits[u]]) for user in kind[:_EACH]]


def _names(subject: Subject, stage: int) -> tuple[Mapping[str, str], Mapping[str, list[str]], str]:
    """Return titles by item, latest items by user, and why there are none where the dataset can't be opened."""
    from peso_cli.data.examples import examples

    try:
        dataset = subject.dataset
    except InputError as error:
        return {}, {}, f"Items go by their ids, for the dataset can't be opened: {error}."
    chosen, items = examples(dataset.block(stage), "test", window=_SHOWN), dataset.catalog.items
    latest = {
        chosen.block.users[user]: [items[item] for item in chosen.history(row)] for row, user in enumerate(chosen.user)
    }
    return dataset.catalog.titles, latest, "" if dataset.catalog.titles else "The dataset has no titles."


def _user(
    user: str, found: Mapping[str, _Served], titles: Mapping[str, str], latest: Mapping[str, Sequence[str]]
) -> Html:
    first = next(iter(found.values())).rows[user]
    head = tag("h4", {}, foreign(user), tag("small", {}, f" {first['group']}"))
    taken = tag("p", {"class": "taken"}, *_taken(first["target"], titles, latest.get(user, ())))
    heads = ["method", "rank", *map(str, range(1, _SHOWN + 1))]
    rows = [[foreign(name), *_cells(table.rows[user], titles)] for name, table in found.items()]
    return tag("div", {"class": "user"}, head, taken, tables.grid(f"Recommended to {user}", heads, rows, "samples"))


def _carriers(user: str, carried: Mapping[str, Mapping[str, _Owed]], titles: Mapping[str, str]) -> Html:
    """Return a table of what carried each method's first recommendation to a user."""
    rows: list[list[Piece]] = [[foreign(name), joined(_owed(of[user], titles))] for name, of in carried.items()]
    return tables.grid(f"What carried the first one to {user}", ["method", "items of the history"], rows)


def _owed(owed: _Owed, titles: Mapping[str, str]) -> Iterator[Piece]:
    if isinstance(owed, str):
        yield owed
        return
    for place, each in enumerate(owed):
        sign = f"{each.contribution:+.3f} ".replace("-", "\N{MINUS SIGN}")
        yield f" \N{MIDDLE DOT} {sign}" if place else sign
        yield foreign(titles.get(each.item, each.item))


def _taken(target: str, titles: Mapping[str, str], latest: Sequence[str]) -> Iterator[Piece]:
    for place, item in enumerate(latest):
        yield "Latest: " if place == 0 else " \N{MIDDLE DOT} "
        yield foreign(titles.get(item, item))
    yield tag("br", {}) if latest else ""
    yield "Then took: "
    yield tag("strong", {}, foreign(titles.get(target, target)))


def _cells(row: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[Piece]:
    yield "missed" if row["rank"] is None else str(row["rank"])
    for place, item in enumerate(row["items"][:_SHOWN], start=1):
        shown = "no item" if item is None else foreign(titles.get(item, item))
        yield joined([tag("mark", {}, "\N{CHECK MARK} ", shown)]) if place == row["rank"] else shown
