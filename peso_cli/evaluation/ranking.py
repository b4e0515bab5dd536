"""Ranking many histories with one model: length-sorted batches, every user scored exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from peso_cli import processes
from peso_cli.backbones.prompts import Prompt
from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.config.schema import Decoding
from peso_cli.decoding.beam import BeamSearch
from peso_cli.decoding.constraints import Constraint, PositionalConstraint, TrieConstraint
from peso_cli.decoding.leave_one_out import LeftOut, leave_one_out
from peso_cli.decoding.likelihood import likelihoods
from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.protocol import check_beams
from peso_cli.semantic_ids.catalog import Catalog

History = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Recommendations, best first.

    Attributes:
        rows: (n, K) rows of `catalog.sids`; -1 stands for a sequence that no item carries.
        scores: (n, K) mean log-probability of each sequence's tokens; where items are ranked, their scores.
        items: (n, K) catalog indices, -1 where none is left, of a model that ranks items themselves; else None.
        parts: of a hybrid, the rankings of its parts by their roles.

    Raises:
        RunError: a score is not a finite number, but for minus infinity where none is left.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    items: NDArray[np.int64] | None = None
    parts: Mapping[str, Ranking] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look at every score: nothing can be ranked by what is no number."""
        _check_finite(self.scores, (self.rows if self.items is None else self.items) >= 0)

    def take(self, users: NDArray[np.int64]) -> Ranking:
        """Return the recommendations of some users."""
        return self._map(lambda values: values[users])

    def top(self, k: int) -> Ranking:
        """Return the first k recommendations."""
        return self._map(lambda values: values[:, :k])

    def _map(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Ranking:
        items = None if self.items is None else change(self.items)
        parts = {role: part._map(change) for role, part in self.parts.items()}
        return Ranking(change(self.rows), change(self.scores), items, parts)


class Ranker:
    """A trained model that ranks a catalog's semantic IDs for histories."""

    def __init__(
        self, model: PreTrainedModel, vocabulary: Vocabulary, prompt: Prompt, catalog: Catalog, decoding: Decoding
    ) -> None:
        self._model, self._vocabulary = model, vocabulary
        kind: type[TrieConstraint] | type[PositionalConstraint]
        kind = TrieConstraint if decoding.constraint == "trie" else PositionalConstraint
        constraint: Constraint = kind(catalog, model.device)
        self._constraint, self._prompt, self._catalog, self._decoding = constraint, prompt, catalog, decoding
        # The head's last token stays with each prompt, so that none is empty.
        self._search = BeamSearch(
            model, vocabulary, constraint, decoding.beams, decoding.normalise, prefix=prompt.head[:-1]
        )

    def within(self, catalog: Catalog) -> Ranker:
        """Return a ranker with the same model whose recommendations come from another catalog of the same codes."""
        if catalog is self._catalog:
            return self
        return Ranker(self._model, self._vocabulary, self._prompt, catalog, self._decoding)

    def rank(
        self,
        histories: Sequence[History],
        k: int,
        tick: Callable[[int, int], None] = lambda done, total: None,
        names: Sequence[str | None] | None = None,
    ) -> Ranking:
        """Rank for (n) histories of catalog indices, oldest first; equal ones are ranked for once.

        Of several processes each ranks a share, in the batches in which one alone would, and all get the whole.

        Args:
            histories: one array per user.
            k: recommendations per user; at most the width of the beam.
            tick: called with (users done, users in all).
            names: the users' ids, which tell a language model nothing.

        Raises:
            InputError: the beam or the catalog is too small for k.
            RunError: not every user was scored exactly once, or a score is not a finite number.
        """
        check_beams(self._decoding, self._catalog, k)
        distinct, place, users = _distinct(histories)
        rows = np.zeros((len(distinct), k), dtype=np.int64)
        scores = np.zeros((len(distinct), k), dtype=np.float32)
        times = np.zeros(len(distinct), dtype=np.int64)
        for members in processes.share(list(self._batches(distinct))):
            found = self._search.run([self._tokens(distinct[i]) for i in members])
            rows[members] = self._constraint.sid_rows(found.nodes[:, :k])
            scores[members] = found.scores[:, :k].float().cpu().numpy()
            times[members] += 1
            tick(min(len(histories), processes.count() * int((times * users).sum())), len(histories))
        rows, scores, times = (processes.total(each) for each in (rows, scores, times))
        _check_once(times)
        return Ranking(rows[place], scores[place])

    def score(
        self,
        histories: Sequence[History],
        candidates: NDArray[np.int64],
        tick: Callable[[int, int], None] = lambda done, total: None,
    ) -> NDArray[np.float32]:
        """Score given semantic IDs for (n) histories, exactly as the beam search scores those that it finds.

        Equal histories are read once, with all that any of them is asked for. Of several processes each scores a share.

        Args:
            histories: one array of catalog indices per user, oldest first.
            candidates: (n, C) rows of `catalog.sids`, -1 for none.
            tick: called with (histories done, histories in all).

        Returns:
            (n, C) mean log-probability of each sequence's tokens, minus infinity where there is none.

        Raises:
            RunError: not every history was scored exactly once, or a score is not a finite number.
        """
        scores = np.full(candidates.shape, -np.inf, dtype=np.float32)
        distinct, place, _ = _distinct(histories)
        questions = _questions(place, candidates, self._search.widest)
        if not len(questions.history):
            return scores
        chosen = [distinct[i] for i in questions.history]
        search = self._search.as_wide(questions.rows.shape[1])
        found = np.zeros(questions.rows.shape, dtype=np.float32)
        times = np.zeros(len(chosen), dtype=np.int64)
        for members in processes.share(list(self._batches(chosen, search))):
            prompts, rows = [self._tokens(chosen[i]) for i in members], questions.rows[members]
            # Where one has none, there is nothing to add up.
            found[members] = np.where(rows >= 0, likelihoods(search, prompts, rows, self._catalog.sids), 0)
            times[members] += 1
            tick(min(len(chosen), processes.count() * int(times.sum())), len(chosen))
        found, times = processes.total(found), processes.total(times)
        _check_once(times)
        scores[candidates >= 0] = found[questions.at]
        _check_finite(scores, candidates >= 0)
        return scores

    def leave_one_out(self, history: History, candidates: NDArray[np.int64], name: str | None = None) -> LeftOut:
        """Return the log-likelihoods of the semantic IDs of (C,) items by a history, whole and without each item.

        Args:
            history: catalog indices, oldest first.
            candidates: catalog indices.
            name: the user's id, which tells a language model nothing.
        """
        return leave_one_out(self._model, self._search.scorer, self._prompt, self._catalog, history, candidates)

    def _tokens(self, history: History) -> NDArray[np.int64]:
        return self._prompt.tokens(history)[len(self._prompt.head) - 1 :]

    def _batches(self, histories: Sequence[History], search: BeamSearch | None = None) -> Iterator[list[int]]:
        """Yield histories in ascending order of length, as many at once as the device likes and has memory for."""
        lengths, search = [len(history) for history in histories], search or self._search
        # What one process has room for is what all go by.
        most, tokens = processes.agreed(
            [search.prompts_at_once, self._decoding.batch_tokens or search.tokens_in_memory()]
        )
        around = len(self._prompt.head) + len(self._prompt.tail) + search.room
        batch: list[int] = []
        for index in np.argsort(lengths, kind="stable").tolist():
            each = around + lengths[index] * self._prompt.items.shape[1]
            if batch and (len(batch) == most or each * (len(batch) + 1) > tokens):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def _distinct(histories: Sequence[History]) -> tuple[list[History], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct histories, (n) which of them each one is, and how often each of them occurs."""
    seen: dict[bytes, int] = {}
    place = np.array([seen.setdefault(history.tobytes(), len(seen)) for history in histories], dtype=np.int64)
    first = np.unique(place, return_index=True)[1]
    return [histories[i] for i in first], place, np.bincount(place, minlength=len(seen))


@dataclass(frozen=True, eq=False)
class _Questions:
    """Histories with the semantic IDs whose scores are asked for.

    Attributes:
        history: (m,) which of the distinct histories each is about; one that is asked very much comes several times.
        rows: (m, W) rows of `catalog.sids`, ascending and distinct; -1 fills up.
        at: where in `rows` each of the candidates stands that are not -1, in the order in which they were given.
    """

    history: NDArray[np.int64]
    rows: NDArray[np.int64]
    at: tuple[NDArray[np.int64], NDArray[np.int64]]


def _questions(place: NDArray[np.int64], candidates: NDArray[np.int64], most: int) -> _Questions:
    """Gather what is asked of each history; `place` are the histories of (n, C) candidates, at most `most` together."""
    asked = candidates >= 0
    pairs = np.stack([np.broadcast_to(place[:, None], candidates.shape)[asked], candidates[asked]], axis=1)
    distinct, back = np.unique(pairs, axis=0, return_inverse=True)
    history, rows = distinct[:, 0], distinct[:, 1]
    within = np.arange(len(history)) - np.searchsorted(history, history)
    (first, question) = np.unique(np.stack([history, within // most], axis=1), axis=0, return_inverse=True)
    question, back, column = question.reshape(-1), back.reshape(-1), within % most
    table = np.full((len(first), int(column.max(initial=-1)) + 1), -1, dtype=np.int64)
    table[question, column] = rows
    return _Questions(first[:, 0], table, (question[back], column[back]))


def _check_finite(scores: NDArray[np.float32], left: NDArray[np.bool_]) -> None:
    """Check (n, K) scores; where nothing is left, they may be minus infinity."""
    broken = ~np.isfinite(scores) & (left | ~np.isneginf(scores))
    if count := int(broken.any(axis=1).sum()):
        raise RunError(
            f"{count} of {len(broken)} users have scores that are not finite numbers, by which nothing is ranked: "
            "the model has diverged. Lower trainer.learning_rate or regularizer.strength"
        )


def _check_once(times: NDArray[np.int64]) -> None:
    if not (times == 1).all():
        raise RunError(f"{int((times != 1).sum())} of {len(times)} histories were not scored exactly once")


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
