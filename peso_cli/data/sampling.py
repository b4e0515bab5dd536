"""Sampling users: a smaller dataset in which those who return still return."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Block, Dataset
from peso_cli.data.examples import MINIMUM_EVENTS
from peso_cli.errors import InputError


def sampled(dataset: Dataset, most: int, seed: int) -> Dataset:
    """Return a dataset of which each stage holds only sampled users; its blocks too are read when first asked for."""
    return replace(dataset, read=lambda stage: sample_users(dataset.read(stage), most, seed), _blocks={})


def sample_users(block: Block, most: int, seed: int) -> Block:
    """Keep a uniform sample of the users who yield examples, with all their events.

    Users are taken by the hash of their id and the seed, smallest first, in every stage alike: who is taken in a stage
    is taken in every other one where they yield examples, unless more users there come before them.

    Args:
        block: a stage's data.
        most: how many users to keep; all who yield examples, if there are no more.
        seed: gives another sample.

    Raises:
        InputError: no user of the stage yields examples.
    """
    able = np.flatnonzero(block.current_lengths >= MINIMUM_EVENTS)
    if not len(able):
        raise InputError(f"dataset.sample_users={most}: no user of stage {block.stage} has {MINIMUM_EVENTS} events")
    order = sorted(able, key=lambda row: _rank(block.users[row], seed))
    return _take(block, np.sort(np.array(order[:most], dtype=np.int64)))


def _rank(user: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {user}".encode()).digest()


def _take(block: Block, rows: NDArray[np.int64]) -> Block:
    """Return a block of some of the users, in the given order."""
    begin, end = block.starts[rows], block.starts[rows + 1]
    starts = np.concatenate([[0], np.cumsum(end - begin)]).astype(np.int64)
    events = np.concatenate([block.events[b:e] for b, e in zip(begin, end, strict=True)])
    current = starts[:-1] + block.previous_lengths[rows]
    return Block(block.stage, tuple(block.users[row] for row in rows), events, starts, current)
