"""Moving last codes at the least cost, so that items that aren't alike have semantic IDs of their own."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from peso_cli.errors import InputError
from peso_cli.semantic_ids.catalog import token_text
from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats
from peso_cli.semantic_ids.sharing import Marks, Numbers, contested, numbered
from peso_cli.semantic_ids.units import Costs, Units, units_of


def reassign(
    codebooks: Codebooks, embeddings: Floats, rows: Numbers, codes: Codes, kinds: Numbers, taken: Codes
) -> Codes:
    """Move the fewest units of alike items that leave no semantic ID to two of them, at the least squared error.

    Within each prefix (all codes but the last), a least-cost assignment of units that share to free last codes. Where a
    prefix has more units than codes, those for which it costs least go to the nearest other last-but-one code that has
    room, and there to the nearest free last code.

    Args:
        codebooks: what the codes belong to.
        embeddings: (all items, width).
        rows: (items,) which of them get semantic IDs.
        codes: (items, levels) their codes.
        kinds: (items,) the same number for items that are alike; 0 or more.
        taken: (others, levels) semantic IDs that are none of theirs to have.

    Raises:
        InputError: there are more units than semantic IDs behind all codes but the last two.
    """
    codes = codes.copy()
    both = np.concatenate([taken, codes])
    clash = contested(both, np.concatenate([np.full(len(taken), -1), kinds]))
    prefix = numbered(both[:, :-1])
    touched = np.flatnonzero(np.isin(prefix, prefix[clash])[len(taken) :])
    if len(touched):
        units = units_of(codebooks, embeddings, rows[touched], codes[touched], kinds[touched])
        others = np.concatenate([taken, np.delete(codes, touched, axis=0)])
        codes[touched] = _settled(units, others, codebooks.centers)[units.of]
    return codes


def _settled(units: Units, others: Codes, centers: tuple[Floats, ...]) -> Codes:
    """Return (units, levels) the codes of units, those that share moved; `others` (n, levels) stay."""
    codes, stays = _spread(units, others, centers)
    blocked = np.concatenate([others, codes[~stays]])
    here = np.flatnonzero(stays)
    kept = Units(units.of, units.codes[here], units.sizes[here], units.left[here])
    for group, last in kept.by_prefix(blocked):
        costs = kept.errors(group, centers[-1])
        codes[here[group], -1] = assigned(costs, kept.codes[group, -1], last)
    return codes


def assigned(costs: Costs, current: Codes, blocked: Codes) -> Codes:
    """Return (units,) last codes, all different and none of the blocked ones: the fewest moves, then the least cost.

    Args:
        costs: (units, codes) of giving a unit a code.
        current: (units,) the codes that they have.
        blocked: codes that they can't have. There are enough others.
    """
    held = np.bincount(current, minlength=costs.shape[1])
    closed = np.isin(np.arange(len(held)), blocked)
    disputed = (held > 1) | ((held > 0) & closed)
    moving, offered = np.flatnonzero(disputed[current]), np.flatnonzero(~closed & (disputed | (held == 0)))
    chosen = current.copy()
    if len(moving):
        table = costs[np.ix_(moving, offered)]
        own = current[moving, None] == offered
        table[own] -= (len(table) + 1) * (table.max() or 1.0)  # to stay counts more than all costs together
        # A move onto a disputed code would be one too many: whoever stays there costs no move.
        table[disputed[offered] & ~own] = np.inf
        unit, place = linear_sum_assignment(table)
        chosen[moving[unit]] = offered[place]
    return chosen


def _spread(units: Units, others: Codes, centers: tuple[Floats, ...]) -> tuple[Codes, Marks]:
    """Move units out of prefixes that have more of them than codes; return (units, levels) codes and who stays."""
    held = np.unique(numbered(others), return_index=True)[1]
    both, stays = np.concatenate([units.codes, others[held]]), np.ones(len(units.codes), bool)
    prefix = numbered(both[:, :-1])
    slots = np.bincount(prefix)
    for group in np.flatnonzero(slots > len(centers[-1])):
        members = np.flatnonzero(prefix[: len(stays)] == group)
        above = (both[:, :-2] == both[members[0], :-2]).all(axis=1)
        if both.shape[1] == 1 or above.sum() > len(centers[-1]) * len(centers[-2]):
            raise InputError(_no_room(both[members[0]], int(above.sum()), centers))
        excess = int(slots[group]) - len(centers[-1])
        stays[_move_out(units, members, excess, both, np.flatnonzero(above), centers)] = False
    return both[: len(stays)], stays


def _move_out(
    units: Units, members: Numbers, excess: int, both: Codes, above: Numbers, centers: tuple[Floats, ...]
) -> Numbers:
    """Give units of one prefix other last-but-one codes, in `both`; return which ones.

    Args:
        units: all units; the first rows of `both` are theirs.
        members: those of the prefix.
        excess: how many have to go.
        both: (units and others, levels) codes.
        above: rows of `both` that have all codes but the last two in common with the prefix.
        centers: of each level.
    """
    here = both[members[0], -2]
    left = units.left[members] + centers[-2][here]
    table = Units(units.of, both[members], units.sizes[members], left).errors(slice(None), centers[-2])
    table -= table[:, [here]]
    used = np.zeros((len(centers[-2]), len(centers[-1])), bool)
    used[both[above, -2], both[above, -1]] = True
    room = len(centers[-1]) - np.bincount(both[above, -2], minlength=len(used))
    table[:, (room <= 0) | (np.arange(len(used)) == here)] = np.inf
    least, gone = table.min(axis=1), []
    for _ in range(excess):
        unit = int(least.argmin())
        code = int(table[unit].argmin())
        free = np.flatnonzero(~used[code])
        rest = np.square(left[unit] - centers[-2][code] - centers[-1][free]).sum(axis=1)
        both[members[unit], -2:] = code, free[rest.argmin()]
        used[code, free[rest.argmin()]] = True
        gone.append(members[unit])
        room[code] -= 1
        if room[code] == 0:
            table[:, code] = np.inf
            least = table.min(axis=1)
        least[np.searchsorted(members, gone)] = np.inf
    return np.array(gone)


def _no_room(codes: Codes, units: int, centers: tuple[Floats, ...]) -> str:
    """Say that units don't fit behind all codes but the last two of (levels,) codes."""
    start = "".join(token_text(level, code) for level, code in enumerate(codes[:-2].tolist()))
    room = len(centers[-1]) * (len(centers[-2]) if len(centers) > 1 else 1)
    return (
        f"tokenizer.resolve=reassign: {units:,} items of different text for {room:,} semantic IDs"
        f"{f' that begin with {start}' if start else ''}; "
        "give the quantizer more codes or levels, or take tokenizer.resolve=extra_level"
    )
