"""Ranking many histories with one model: length-sorted batches, every user scored exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from peso_cli.backbones.prompts import Prompt
from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.config.schema import Decoding
from peso_cli.decoding.beam import BeamSearch
from peso_cli.decoding.constraints import Constraint, PositionalConstraint, TrieConstraint
from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.protocol import TOP, check_beams
from peso_cli.semantic_ids.catalog import Catalog

History = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Recommendations, best first.

    Attributes:
        rows: (n, K) rows of `catalog.sids`; -1 stands behind the last, or for a sequence that no item carries.
        scores: (n, K) mean log-probability of each sequence's tokens.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class Ranker:
    """A trained model that ranks a catalog's semantic IDs for histories."""

    def __init__(
        self, model: PreTrainedModel, vocabulary: Vocabulary, prompt: Prompt, catalog: Catalog, decoding: Decoding
    ) -> None:
        check_beams(decoding, catalog)
        kind: type[TrieConstraint] | type[PositionalConstraint]
        kind = TrieConstraint if decoding.constraint == "trie" else PositionalConstraint
        constraint: Constraint = kind(catalog, model.device)
        self._constraint, self._prompt, self._decoding = constraint, prompt, decoding
        self._search = BeamSearch(model, vocabulary, constraint, decoding.beams, decoding.normalise)

    def rank(
        self, histories: Sequence[History], k: int = TOP, tick: Callable[[int, int], None] = lambda done, total: None
    ) -> Ranking:
        """Rank for (n) histories of catalog indices, oldest first.

        Args:
            histories: one array per user.
            k: recommendations per user; at most the width of the beam.
            tick: called with (users done, users in all).

        Raises:
            RunError: not every user was scored exactly once.
        """
        rows = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        times = np.zeros(len(histories), dtype=np.int64)
        for members in self._batches(histories):
            found = self._search.run([self._prompt.tokens(histories[i]) for i in members])
            rows[members] = self._constraint.sid_rows(found.nodes[:, :k])
            scores[members] = found.scores[:, :k].float().cpu().numpy()
            times[members] += 1
            tick(int(times.sum()), len(histories))
        if not (times == 1).all():
            raise RunError(f"{int((times != 1).sum())} of {len(histories)} users were not scored exactly once")
        return Ranking(rows, scores)

    def _batches(self, histories: Sequence[History]) -> Iterator[list[int]]:
        lengths = [len(history) for history in histories]
        around = len(self._prompt.head) + len(self._prompt.tail)
        batch: list[int] = []
        for index in np.argsort(lengths, kind="stable").tolist():
            tokens = around + lengths[index] * self._prompt.items.shape[1]
            if batch and tokens * (len(batch) + 1) > self._decoding.batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def seeded_sample(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Return at most `most` of `count` row numbers, in ascending order, drawn without replacement."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def pick_device(choice: str) -> torch.device:
    """Return the device that `device=` names; `auto` takes a GPU where there is one.

    Raises:
        InputError: cuda is asked for and not there.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: no CUDA device is there; use device=auto or device=cpu")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")
