"""Which records a table compares: filters, and variants of a method with their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from peso_cli.config.compose import conf_folder, group_options
from peso_cli.config.schema import STAGE_FORMS
from peso_cli.errors import InputError, nearest
from peso_cli.reports.collected import BASE, Place, Record
from peso_cli.reports.comparable import first_difference
from peso_cli.reports.published import published_methods

_DIGITS = 9
"""Most digits of a stage's number."""

_PLACE = tuple(Place.__dataclass_fields__)
_UNTOLD = re.compile(
    r"(stage|seed|output|variant|device|dataset\.path|decoding\.batch_tokens|trainer\.(checkpoint_(minutes|steps)|shard)"
    r"|(evaluation|tracker|cleaning|split|embedding|quantizer|tokenizer|experiment)\..*|.*\._target_)"
)
"""Settings that don't tell one variant of a method from another."""


@dataclass(frozen=True)
class Variant:
    """A method with its settings: what a row of a table is of.

    Attributes:
        name: the method's name; where it has several variants, with the settings in which they differ.
        method: the method's name.
        records: what is finished of it, by seed and stage (2 and later).
    """

    name: str
    method: str
    records: Mapping[tuple[int, int], Record]

    @property
    def any(self) -> Record:
        """A record of it: settings and composition are the same in all."""
        return next(iter(self.records.values()))


@dataclass(frozen=True)
class Group:
    """What one table compares: variants on the same dataset and backbone.

    Attributes:
        dataset, backbone: their names.
        variants: the rows, published methods first, in the paper's order.
        absent: methods that were asked for and have nothing finished.
        stages: the stages after the first for which any variant has a record.
        seeds: the seeds for which any has one.
        bases: the records of stage 1, whatever was asked for.
        baseline: the name of the row that others are compared with; empty for none.
        mixed: two runs and the first thing in which they differ, where they can't be compared; else empty.
        notes: what else is to be known of the choice of its variants.
    """

    dataset: str
    backbone: str
    variants: tuple[Variant, ...]
    absent: tuple[str, ...]
    stages: tuple[int, ...]
    seeds: tuple[int, ...]
    bases: tuple[Record, ...]
    baseline: str = ""
    mixed: str = ""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The dataset and the backbone."""
        return f"{self.dataset}, {self.backbone}"

    @property
    def span(self) -> str:
        """The stages in words."""
        return f"stage {self.stages[0]}" if len(self.stages) == 1 else f"stages {', '.join(map(str, self.stages))}"

    def base_of(self, variant: Variant, seed: int) -> Record | None:
        """Return the record of stage 1 that a variant began from, under the variant's own protocol."""
        second = variant.records.get((seed, 2))
        if second is None:
            return None
        found = (base for base in self.bases if base.fingerprint == second.parent)
        return next((base for base in found if base.protocol == second.protocol), None)


def select(records: Sequence[Record], words: Sequence[str], baseline: str = "", mix: bool = False) -> list[Group]:
    """Choose records and group them by dataset and backbone.

    Args:
        records: everything that is finished.
        words: filters `KEY=VALUE,...`: dataset, backbone, method, variant, seed, stage or any setting. A run that has
            no such setting, as `single` has no `regularizer.strength`, passes.
        baseline: the row that others are compared with, by its name or by its method's.
        mix: whether runs of other data, semantic IDs, protocols or prompts may stand in one table.

    Raises:
        InputError: a filter can't be read or leaves nothing, or runs differ in what makes figures comparable.
    """
    filters = dict(_filter(word, records) for word in words)
    methods = filters.get("method", ())
    _check_methods(methods, records, "method=")
    _check_methods([baseline.partition(" ")[0]] if baseline else [], records, "--baseline ")
    later = [record for record in records if record.place.method != BASE and _passes(record, filters)]
    if not later:
        asked = f" that fits {' '.join(words)}" if words else ""
        raise InputError(f"nothing finished behind stage 1{asked}; see what there is: peso runs")
    bases = tuple(record for record in records if record.place.method == BASE)
    by_place = sorted(_one_protocol_each(later), key=_group_key)
    chosen = [list(group) for _, group in groupby(by_place, key=_group_key)]
    differences = [first_difference(group) for group in chosen]
    if any(differences) and not mix:
        difference = next(filter(None, differences))
        raise InputError(f"{difference}; choose by a filter (method=, variant=, decoding.beams=, ...), or give --mix")
    groups = (_group(group, methods, bases, baseline) for group in chosen)
    return [replace(group, mixed=difference) for group, difference in zip(groups, differences, strict=True)]


def restricted(group: Group, kept: Sequence[str], notes: Sequence[str]) -> Group:
    """Return a group with some of its variants alone, which are named anew, in the group's order.

    Args:
        group: what was selected.
        kept: the names of the variants that stay.
        notes: why the others don't.
    """
    stay = [variant for variant in group.variants if variant.name in kept]
    records = [record for variant in stay for record in variant.records.values()]
    fewer = _group(records, (), group.bases, group.baseline)
    renamed = {old.name: new.name for old, new in zip(stay, fewer.variants, strict=True)}
    baseline, mixed = renamed.get(group.baseline, fewer.baseline), first_difference(records)
    return replace(fewer, absent=group.absent, baseline=baseline, mixed=mixed, notes=tuple(notes))


def _group_key(record: Record) -> tuple[str, str]:
    return record.place.dataset, record.place.backbone


def _filter(word: str, records: Sequence[Record]) -> tuple[str, tuple[str, ...]]:
    key, equals, values = word.partition("=")
    if not (key and equals and values):
        raise InputError(f"{word!r} can't be read; write KEY=VALUE or KEY=VALUE,VALUE, such as method=peso,single")
    known = {*_PLACE, *(key for record in records for key in record.settings)}
    if key not in known:
        raise InputError(f"unknown key {key!r}{nearest(key, known)}; filters are {', '.join(_PLACE)} and settings")
    if key == "stage" and ".." in values:
        first, _, last = values.partition("..")
        if not (first.isdecimal() and last.isdecimal() and max(len(first), len(last)) <= _DIGITS):
            raise InputError(f"stage={values}: {STAGE_FORMS}")
        known_stages = {record.place.stage for record in records}
        return key, tuple(str(stage) for stage in known_stages if int(first) <= stage <= int(last))
    return key, tuple(values.removeprefix("[").removesuffix("]").split(","))


def _check_methods(named: Iterable[str], records: Sequence[Record], where: str) -> None:
    known = {record.place.method for record in records} | set(group_options([conf_folder()])["method"])
    for method in named:
        if method not in known:
            raise InputError(f"{where}{method}: no such method{nearest(method, known)}")


def _passes(record: Record, filters: Mapping[str, tuple[str, ...]]) -> bool:
    values = {**record.settings, **asdict(record.place)}
    told = ((values[key], texts) for key, texts in filters.items() if key in values)
    return all(any(_equal(value, text) for text in texts) for value, texts in told)


def _equal(value: Any, text: str) -> bool:
    """Tell whether a text means a value: 3000 is 3000.0, and null is nothing."""
    if text in (str(value), shown_value(value)):
        return True
    return isinstance(value, int | float) and float(value) == _number(text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _one_protocol_each(records: Iterable[Record]) -> list[Record]:
    """Keep one record of each stage: its own protocol's, where that passed the filters.

    Raises:
        InputError: two folders are of the same stage of the same variant and differ.
    """
    first: dict[Place, Record] = {}
    for record in records:
        known = first.setdefault(record.place, record)
        if known.fingerprint != record.fingerprint:
            raise InputError(
                f"{known.folder} and {record.folder} have the same place and aren't the same; "
                "give --output a folder that holds one of them"
            )
    return list(first.values())


def _group(records: Sequence[Record], asked: Sequence[str], bases: tuple[Record, ...], baseline: str) -> Group:
    place = records[0].place
    variants = _variants(records)
    present = {variant.method for variant in variants}
    return Group(
        dataset=place.dataset,
        backbone=place.backbone,
        variants=variants,
        absent=tuple(method for method in asked if method not in present),
        stages=tuple(sorted({record.place.stage for record in records})),
        seeds=tuple(sorted({record.place.seed for record in records})),
        bases=bases,
        baseline=_baseline(baseline, variants),
    )


def _baseline(name: str, variants: Sequence[Variant]) -> str:
    """Return the name of the row that a name or a method means; the name itself where that isn't one row."""
    rows = [variant.name for variant in variants if name in (variant.name, variant.method)]
    return rows[0] if len(rows) == 1 else name


def _variants(records: Sequence[Record]) -> tuple[Variant, ...]:
    """Return the variants of all methods, published methods first and in the paper's order."""
    order = {method: place for place, method in enumerate(published_methods("main"))}

    def key(record: Record) -> tuple[int, str, str]:
        place = record.place
        return order.get(place.method, len(order)), place.method, place.variant

    found: dict[str, list[list[Record]]] = {}
    for (_, method, _), members in groupby(sorted(records, key=key), key=key):
        found.setdefault(method, []).append(list(members))
    return tuple(
        Variant(name, method, {(r.place.seed, r.place.stage): r for r in members})
        for method, variants in ((method, _in_order(variants)) for method, variants in found.items())
        for name, members in zip(_names(method, variants), variants, strict=True)
    )


def _in_order(variants: Sequence[list[Record]]) -> list[list[Record]]:
    """Sort a method's variants by the values of the settings in which they differ, numbers by their size."""
    firsts = [members[0].settings for members in variants]
    keys = differing(firsts)
    return sorted(variants, key=lambda members: [_size(members[0].settings[key]) for key in keys])


def _size(value: Any) -> tuple[bool, float, str]:
    """Return what values of a setting are sorted by: numbers first."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, shown_value(value)


def _names(method: str, variants: Sequence[Sequence[Record]]) -> list[str]:
    """Name a method's variants by the settings in which they differ; by their folder's name where that isn't enough."""
    firsts = [members[0] for members in variants]
    if len(firsts) == 1:
        return [method]
    keys = differing([first.settings for first in firsts])
    told = [", ".join(f"{key}={shown_value(first.settings[key])}" for key in keys) for first in firsts]
    if len(set(told)) < len(told):
        told = [f"{text}{', ' * bool(text)}variant={f.place.variant}" for text, f in zip(told, firsts, strict=True)]
    return [f"{method} ({text})" for text in told]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that all have, and not all with the same value."""
    shared = [key for key in settings[0] if all(key in other for other in settings) and not _UNTOLD.fullmatch(key)]
    return [key for key in shared if any(other[key] != settings[0][key] for other in settings)]


def shown_value(value: Any) -> str:
    """Return a setting's value as an override has it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.12g}"
        case list() | tuple():
            return f"[{','.join(map(shown_value, value))}]"
    return str(value)
