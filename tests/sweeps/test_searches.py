"""The search itself, on objectives that cost nothing: what it finds, and that interruptions change none of it."""

import math
import tempfile
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.sweeps.searches.choose import choose_search
from peso_cli.sweeps.searches.outcome import best
from peso_cli.sweeps.searches.space import Choice, Number
from peso_cli.sweeps.searches.study import explore, find_study, open_record, open_study

AXES = {"depth": Number(1, 9, 2, False), "kind": Choice(("a", "b")), "strength": Number(0.1, 1e6, None, True)}
STAGES = (2, 3, 4, 5)


def searching(*words):
    search = choose_search(["search=tpe", "search.random=3", "search.trials=10", *words])
    assert search is not None
    return search


class Work:
    """A stand-in for training: what a trial is worth at a stage, and what was asked for; it may be interrupted."""

    def __init__(self, objectives=1, interrupt_at=None):
        self.objectives, self.interrupt_at, self.steps = objectives, interrupt_at, 0
        self.measured = Counter()

    def tick(self):
        self.steps += 1
        if self.steps == self.interrupt_at:
            raise KeyboardInterrupt

    def __call__(self, trials, stages):
        self.tick()
        self.measured.update((number, stages) for number in trials)
        return {number: self.worth(values, stages) for number, values in trials.items()}

    def worth(self, values, stages):
        near = -((math.log10(values["strength"]) - 3) ** 2) - (values["kind"] == "b") - values["depth"] / 10
        return (near * (1 + stages[-1] / 100), float(values["depth"]))[: self.objectives]


class Recording:
    """A study whose additions count as steps of the work, which may be interrupted between any two of them."""

    def __init__(self, study, work):
        self.study, self.work, self.study_name = study, work, study.study_name

    @property
    def trials(self):
        return self.study.trials

    def add_trial(self, trial):
        self.work.tick()
        self.study.add_trial(trial)


def run(path, search, work):
    with open_record(path, lambda: None) as storage:
        explore(Recording(open_study(storage, "data", search), work), search, AXES, STAGES, work)


def told(path):
    return [
        (t.number, t.state.name, t.params, t.values, t.intermediate_values) for t in find_study(path, "data").trials
    ]


def uninterrupted(path, *words, objectives=1):
    work = Work(objectives)
    run(path, searching(*words), work)
    return told(path), work


def test_a_search_learns_where_values_are_better_and_finds_the_better_choice(tmp_path):
    later = {}
    for name in ("tpe", "random"):
        run(tmp_path / name, choose_search([f"search={name}", "search.trials=48"]), Work())
        later[name] = fmean(values[0] for _, _, _, values, _ in told(tmp_path / name)[24:])
    assert later["tpe"] > later["random"] + 1
    (chosen,) = best(find_study(tmp_path / "tpe", "data"))
    assert chosen.params["kind"] == "a"
    assert 100 < chosen.params["strength"] < 10000


def test_values_lie_in_their_space(tmp_path):
    trials, _ = uninterrupted(tmp_path / "study.log")
    assert [number for number, *_ in trials] == list(range(10))
    for _, _, params, _, _ in trials:
        assert params["depth"] in (1, 3, 5, 7, 9)
        assert params["kind"] in ("a", "b")
        assert 0.1 <= params["strength"] <= 1e6


@pytest.mark.parametrize(
    ("words", "objectives"),
    [
        ((), 1),
        (("search.prune=true", "search.unpruned=2"), 1),
        (("search.prune=true", "search.pruner=hyperband"), 1),
        (("search.objectives=[ndcg@10,-seconds]",), 2),
    ],
)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_a_search_that_is_interrupted_anywhere_ends_like_one_that_never_was(words, objectives, data):
    with tempfile.TemporaryDirectory() as folder:
        reference, work = uninterrupted(Path(folder) / "whole.log", *words, objectives=objectives)
        path = Path(folder) / "study.log"
        for at in data.draw(st.lists(st.integers(1, work.steps), min_size=1, max_size=3)):
            broken = Work(objectives, interrupt_at=at)
            try:
                run(path, searching(*words), broken)
            except KeyboardInterrupt:
                with path.open("ab") as file:
                    file.write(data.draw(st.sampled_from([b"", b'{"op_code":4,"worker', b"\xff"])))
        run(path, searching(*words), Work(objectives))
        assert told(path) == reference


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trials_that_do_badly_are_not_trained_any_further(tmp_path, pruner):
    words = ("search.prune=true", f"search.pruner={pruner}", "search.unpruned=2", "search.trials=24")
    trials, work = uninterrupted(tmp_path / "study.log", *words)
    states = Counter(state for _, state, *_ in trials)
    assert states.keys() == {"PRUNED", "COMPLETE"}
    for number, state, _, _, after in trials:
        trained = [stages for n, stages in work.measured if n == number]
        assert trained == [STAGES[:count] for count in range(1, len(after) + 1)]
        assert (len(after) == len(STAGES)) == (state == "COMPLETE")
    done = [t for t in trials if t[1] == "COMPLETE"]
    cut = [t for t in trials if t[1] == "PRUNED"]
    assert max(t[3][0] for t in done) >= max(t[3][0] for t in cut)


def test_more_trials_go_on_as_if_all_had_been_asked_for_at_once(tmp_path):
    whole, _ = uninterrupted(tmp_path / "whole.log", "search.trials=13")
    for trials in (3, 10, 13):
        run(tmp_path / "study.log", searching(f"search.trials={trials}"), Work())
    assert told(tmp_path / "study.log") == whole


def test_a_finished_search_measures_nothing_again(tmp_path):
    uninterrupted(tmp_path / "study.log")
    _, again = uninterrupted(tmp_path / "study.log")
    assert again.steps == 0


def test_seeds_of_the_search_give_different_trials(tmp_path):
    one, _ = uninterrupted(tmp_path / "one.log", "search.seed=1")
    two, _ = uninterrupted(tmp_path / "two.log", "search.seed=2")
    assert one != two


def test_a_trial_that_failed_is_neither_learnt_from_nor_chosen(tmp_path):
    class Failing(Work):
        def worth(self, values, stages):
            return None if values["kind"] == "a" else super().worth(values, stages)

    run(tmp_path / "study.log", searching(), Failing())
    for _, state, params, values, _ in told(tmp_path / "study.log"):
        assert (state, values) == ("FAIL", None) if params["kind"] == "a" else state == "COMPLETE"
    (chosen,) = best(find_study(tmp_path / "study.log", "data"))
    assert chosen.params["kind"] == "b"


def test_all_trade_offs_of_several_objectives_are_kept_and_no_others(tmp_path):
    trials, _ = uninterrupted(tmp_path / "study.log", "search.objectives=[ndcg@10,-seconds]", objectives=2)
    values = {number: found for number, _, _, found, _ in trials}

    def beaten(one):
        return any(o[0] >= one[0] and o[1] <= one[1] and o != one for o in values.values())

    front = {trial.number for trial in best(find_study(tmp_path / "study.log", "data"))}
    assert front == {number for number, found in values.items() if not beaten(found)}


def test_a_lock_that_a_killed_process_left_behind_holds_nobody_up(tmp_path):
    path = tmp_path / "study.log"
    run(path, searching("search.trials=2"), Work())
    path.with_name("study.log.lock").symlink_to(path)
    run(path, searching(), Work())
    assert len(told(path)) == 10
