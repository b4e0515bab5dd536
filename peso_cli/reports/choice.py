"""Choosing among variants of a method on validation users, never on test users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean

from peso_cli.errors import InputError
from peso_cli.reports.collected import Record
from peso_cli.reports.filling import scoring_gap
from peso_cli.reports.model import Cell, Footnote, cell_of
from peso_cli.reports.selection import Group, Variant, differing, restricted, shown_value

STRENGTH = "regularizer.strength"

KINDS = ("ndcg", "recall")
"""The kinds of figures that are shown of validation users; the first one decides."""

_AT = 10
"""The K of the figures that a choice rests on."""


def chosen_variant(variants: Sequence[Variant]) -> Variant | None:
    """Return the variant of a method with the highest NDCG@10 on validation users; of equals, the first by name.

    The figure is the mean over the stages behind the first, and over those seeds with which every variant has them all.

    Args:
        variants: the candidates; at least one.

    Returns:
        None where no seed has all stages of all candidates, or a figure of them is missing.
    """
    seeds, stages = shared_seeds(variants), _stages(variants)
    means = {variant.name: validation(variant, stages) for variant in variants}
    if not seeds or any(not set(seeds) <= by_seed.keys() for by_seed in means.values()):
        return None
    return min(variants, key=lambda v: (-fmean(means[v.name][seed] for seed in seeds), v.name))


def figure_name(record: Record, kind: str = KINDS[0]) -> str:
    """Return the name of the figure that a choice rests on: at 10, or at the end of shorter lists."""
    return f"{kind}@{min(_AT, record.protocol['top_k'])}"


def validation(variant: Variant, stages: Sequence[int], kind: str = KINDS[0]) -> dict[int, float]:
    """Return, by seed, the mean over stages of a figure of validation users; a seed that lacks one has none."""
    found: dict[int, float] = {}
    for seed in sorted({seed for seed, _ in variant.records}):
        values = [_figure(variant.records.get((seed, stage)), kind) for stage in stages]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            found[seed] = fmean(known)
    return found


def validation_cell(variant: Variant, stages: Sequence[int], kind: str) -> Cell:
    """Return the mean over seeds of a figure of validation users."""
    return cell_of([*validation(variant, stages, kind).values()], "no seed has all stages scored on validation users")


def shared_seeds(variants: Sequence[Variant]) -> tuple[int, ...]:
    """Return the seeds with which every variant has all stages that any has."""
    stages = _stages(variants)
    seeds = {seed for variant in variants for seed, _ in variant.records}
    return tuple(s for s in sorted(seeds) if all((s, stage) in v.records for v in variants for stage in stages))


def choice_notes(variants: Sequence[Variant]) -> Iterator[Footnote]:
    """Yield which candidate is chosen on validation and what that rests on; or else what is missing for it."""
    chosen, stages, seeds = chosen_variant(variants), _stages(variants), shared_seeds(variants)
    if chosen is not None:
        name = figure_name(chosen.any)
        rests = f"{_counted('stage', stages)}, {_counted('seed', seeds)}"
        yield Footnote(f"chosen on validation: {chosen.name} (highest {name} of validation users, mean over {rests})")
    elif not seeds:
        names = ", ".join(variant.name for variant in variants)
        yield Footnote(f"nothing is chosen on validation: no seed has all stages of {names}")
    else:
        yield from unscored(variants)


def only_chosen(group: Group) -> Group:
    """Return a group that, of a method's variants that differ only in strength, keeps the one chosen on validation.

    Raises:
        InputError: a figure that the choice rests on is missing; names the command that brings it.
    """
    dropped: set[str] = set()
    notes: list[str] = []
    for rivals in contests(group.variants, [STRENGTH]):
        chosen, (note, *_) = chosen_variant(rivals), choice_notes(rivals)
        if chosen is None:
            raise InputError(f"--chosen: {note.text}; {_remedy(note, rivals)}")
        dropped |= {variant.name for variant in rivals} - {chosen.name}
        values = ", ".join(shown_value(variant.any.settings[STRENGTH]) for variant in sorted(rivals, key=_strength))
        notes.append(f"{note.text}, of {STRENGTH} {values}")
    kept = [variant.name for variant in group.variants if variant.name not in dropped]
    return restricted(group, kept, notes) if dropped else group


def _strength(variant: Variant) -> float:
    return float(variant.any.settings[STRENGTH])


def _remedy(note: Footnote, rivals: Sequence[Variant]) -> str:
    return f"first run: {note.command}" if note.command else f"see peso tables strength method={rivals[0].method}"


def contests(variants: Sequence[Variant], keys: Sequence[str]) -> list[list[Variant]]:
    """Return the variants among which validation chooses: those of a method that differ only along some settings."""
    found = []
    for _, members in groupby(variants, key=lambda variant: variant.method):
        able = [variant for variant in members if all(key in variant.any.settings for key in keys)]
        others = [key for key in differing([v.any.settings for v in able]) if key not in keys] if able else []
        alike: dict[tuple[str, ...], list[Variant]] = {}
        for variant in able:
            alike.setdefault(_values(variant, others), []).append(variant)
        found += [rivals for rivals in alike.values() if len({_values(variant, keys) for variant in rivals}) > 1]
    return found


def _values(variant: Variant, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(shown_value(variant.any.settings[key]) for key in keys)


def unscored(rivals: Sequence[Variant]) -> Iterator[Footnote]:
    """Yield which validation figures a choice lacks, with what brings them."""
    stages = _stages(rivals)
    for variant in rivals:
        for seed in shared_seeds(rivals):
            lacking = [stage for stage in stages if _figure(variant.records[seed, stage]) is None]
            if lacking:
                span = str(lacking[0]) if len(lacking) == 1 else shown_value(lacking)
                gap = scoring_gap(variant.any, seed, span, split="valid")
                named = f"{variant.name}, seed {seed}, {_counted('stage', lacking)}"
                yield Footnote(f"missing: {named}, figures of validation users", gap)


def _figure(record: Record | None, kind: str = KINDS[0]) -> float | None:
    if record is None:
        return None
    value: float | None = (record.figures(split="valid") or {}).get(figure_name(record, kind))
    return value


def _stages(variants: Sequence[Variant]) -> tuple[int, ...]:
    return tuple(sorted({stage for variant in variants for _, stage in variant.records}))


def _counted(what: str, numbers: Sequence[int]) -> str:
    return f"{what}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
