import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from commands.running import SMALL, peso, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from populations import populations, random_block
from pydantic import TypeAdapter, ValidationError
from worlds import block_of

from peso_cli.config.compose import compose
from peso_cli.data.examples import examples
from peso_cli.methods.memories.all import All
from peso_cli.methods.memories.current import Current
from peso_cli.methods.memories.replay import Replay

SAMPLINGS = ("reservoir", "recent", "per_user")
EACH = pytest.mark.parametrize("sampling", SAMPLINGS)
pasts, sizes, seeds = st.lists(populations, min_size=2, max_size=4), st.integers(1, 30), st.integers(0, 99)


def stages_of(worlds):
    """The training examples of stages, by number."""
    return {stage: examples(block_of(users, stage), "train", 5) for stage, users in enumerate(worlds, start=1)}


def replayed(found, stage, size, sampling, seed=0):
    """The past examples that a stage trains on, as (stage, target); checks that it trains on all of its own."""
    *past, own = Replay(size, sampling, 1.0, 1.0).select(stage, found.__getitem__, seed)
    assert own.examples.target.tolist() == found[stage].target.tolist()
    assert [portion.examples.block.stage for portion in past] == list(range(1, stage))
    return [(portion.examples.block.stage, target) for portion in past for target in portion.examples.target.tolist()]


def everything(found, before):
    """All examples of the stages before one, as (stage, target)."""
    return [(stage, target) for stage in range(1, before) for target in found[stage].target.tolist()]


# What a buffer holds


@EACH
@settings(max_examples=50, deadline=None)
@given(pasts, sizes, seeds)
def test_a_buffer_holds_that_many_examples_of_the_past_in_order_each_once(sampling, worlds, size, seed):
    found = stages_of(worlds)
    for stage in found:
        past, held = everything(found, stage), replayed(found, stage, size, sampling, seed)
        assert len(held) == min(size, len(past))
        assert set(held) <= set(past)
        assert held == sorted(set(held))
        assert held == replayed(found, stage, size, sampling, seed)


@EACH
def test_what_is_replayed_is_the_example_as_it_was(sampling):
    found = {1: examples(random_block(20, stage=1), "train", 5), 2: examples(random_block(3), "train", 5)}
    (past, _) = Replay(9, sampling, 1.0, 1.0).select(2, found.__getitem__, 1)
    rows = np.searchsorted(found[1].target, past.examples.target)
    for name in ("user", "start", "target"):
        assert getattr(past.examples, name).tolist() == getattr(found[1], name)[rows].tolist()


@EACH
def test_other_seeds_decide_otherwise(sampling):
    found = stages_of([{f"u{n}": ([], [1] * 5) for n in range(20)} for _ in (1, 2, 3)])
    assert len({tuple(replayed(found, 3, 7, sampling, seed)) for seed in range(10)}) == 10


@settings(max_examples=50, deadline=None)
@given(pasts, sizes, seeds)
def test_what_a_reservoir_has_dropped_never_comes_back(worlds, size, seed):
    found = stages_of(worlds)
    for stage in range(2, len(found)):
        now, next_one = (set(replayed(found, s, size, "reservoir", seed)) for s in (stage, stage + 1))
        assert {one for one in next_one if one[0] < stage} <= now


def test_a_reservoir_holds_every_past_example_with_the_same_chance():
    found = {s: examples(random_block(n, seed=s, stage=s), "train", 5) for s, n in ((1, 12), (2, 4), (3, 8), (4, 2))}
    past, seeds = everything(found, 4), 600
    held = Counter(one for seed in range(seeds) for one in replayed(found, 4, 15, "reservoir", seed))
    chance = 15 / len(past)
    assert 0.1 < chance < 0.5
    deviations = (np.array([held[one] for one in past]) - seeds * chance) / np.sqrt(seeds * chance * (1 - chance))
    assert np.abs(deviations).max() < 4.5
    assert 0.6 < deviations.std() < 1.4


def ages(found, before):
    """How old each past example is, newest least: whole stages, and what is left of its own, told exactly."""
    ages = {}
    for stage in range(1, before):
        one = found[stage]
        for user, target in zip(one.user.tolist(), one.target.tolist(), strict=True):
            order, events = target - one.block.current[user] + 1, one.block.current_lengths[user]
            ages[stage, target] = before - stage - Fraction(int(order), int(events) + 1)
    return ages


def turns(found, before):
    """How many newer examples each past example's user has."""
    counts, turns = Counter(), {}
    for stage, target in reversed(everything(found, before)):
        one = found[stage]
        user = one.block.users[one.user[one.target.tolist().index(target)]]
        turns[stage, target] = counts[user]
        counts[user] += 1
    return turns


@pytest.mark.parametrize(("sampling", "ranks"), [("recent", ages), ("per_user", turns)])
@settings(max_examples=50, deadline=None)
@given(pasts, sizes, seeds)
def test_nothing_left_out_would_have_come_before_what_is_held(sampling, ranks, worlds, size, seed):
    found = stages_of(worlds)
    rank, held = ranks(found, len(found)), set(replayed(found, len(found), size, sampling, seed))
    assert max((rank[one] for one in held), default=0) <= min((rank[one] for one in rank.keys() - held), default=99)


def test_the_last_examples_are_those_of_the_newest_stage_and_there_the_latest():
    worlds = [{"a": ([], [1] * 9)}, {"a": ([], [1] * 6), "b": ([], [2] * 4)}, {"c": ([], [1, 2, 3])}]
    found = stages_of(worlds)
    # In stage 2, a's examples come after 1/7, 2/7, 3/7 and 4/7 of the stage, b's after 1/5 and 2/5.
    assert [replayed(found, 3, size, "recent") for size in (1, 2, 3, 4)] == [
        [(2, 3)],
        [(2, 2), (2, 3)],
        [(2, 2), (2, 3), (2, 7)],
        [(2, 1), (2, 2), (2, 3), (2, 7)],
    ]
    assert replayed(found, 3, 8, "recent") == [(1, 5), (1, 6), *[(2, target) for target in (0, 1, 2, 3, 6, 7)]]


def test_events_of_a_stage_are_taken_to_be_spread_evenly_over_it():
    found = stages_of([{"a": ([], [1] * 3), "b": ([], [2] * 12)}, {"c": ([], [1, 2, 3])}])
    # a's only example comes after 1/4 of the stage: b's third of 12 before it (3/13), the fourth behind it (4/13).
    assert replayed(found, 2, 7, "recent") == [(1, target) for target in range(6, 13)]
    assert replayed(found, 2, 8, "recent") == [(1, 0), *[(1, target) for target in range(6, 13)]]


def test_every_user_has_a_turn_before_anyone_has_another():
    worlds = [{"a": ([], [1] * 5), "b": ([], [2] * 9)}, {"a": ([1] * 5, [1] * 4)}, {"c": ([], [1, 2, 3])}]
    found = stages_of(worlds)
    assert replayed(found, 3, 2, "per_user") == [(1, 11), (2, 6)]
    assert replayed(found, 3, 4, "per_user") == [(1, 10), (1, 11), (2, 5), (2, 6)]
    assert replayed(found, 3, 6, "per_user") == [(1, 2), (1, 9), (1, 10), (1, 11), (2, 5), (2, 6)]


# Weights


def weights(memory, stage, count=4):
    """The weight of each stage that a memory trains on."""
    found = {s: examples(random_block(5, seed=s, stage=s), "train", 5) for s in range(1, count + 1)}
    portions = memory.select(stage, found.__getitem__, 0)
    assert tuple(portion.examples.block.stage for portion in portions) == memory.stages(stage)
    return [portion.weight for portion in portions]


@pytest.mark.parametrize("memory", [All(0.5, 0.1), Replay(9, "recent", 0.5, 0.1)])
def test_the_past_may_weigh_less_the_further_back_it_is(memory):
    assert weights(memory, 4) == pytest.approx([0.005, 0.05, 0.5, 1.0])
    assert weights(memory, 1) == [1.0]
    assert weights(replace(memory, decay=0.0), 4) == [0.0, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("choice", ["all", "replay"])
def test_unless_asked_for_every_stage_weighs_the_same(choice):
    assert weights(compose([f"memory={choice}"]).config.memory, 4) == [1.0] * 4


def test_the_current_stage_alone_weighs_one():
    assert weights(Current(), 3) == [1.0]


@pytest.mark.parametrize(
    ("memory", "wrong"),
    [
        *[(Replay, {"size": size}) for size in (0, -1, 1.5, True)],
        *[(kind, {"past_weight": weight}) for kind in (All, Replay) for weight in (-0.1, np.inf, np.nan, 1e30, "1")],
        *[(kind, {"decay": decay}) for kind in (All, Replay) for decay in (-0.1, 1.1, np.nan)],
        (Replay, {"sampling": "random"}),
        (All, {"size": 3}),
    ],
)
def test_a_config_refuses_what_makes_no_sense(memory, wrong):
    right = {"past_weight": 2, "decay": 0.5, **({"size": 3, "sampling": "recent"} if memory is Replay else {})}
    assert TypeAdapter(memory).validate_python(right).past_weight == 2.0
    with pytest.raises(ValidationError):
        TypeAdapter(memory).validate_python({**right, **wrong})


def test_the_command_line_says_which_setting_is_wrong():
    refused(peso("train", "method=replay", "memory.size=0", *SMALL), "memory.size")
    refused(peso("train", "method=replay", "memory.sampling=latest", *SMALL), "memory.sampling")


# Through the command line


def run(output, variant, *more, last=2):
    """Train stages of the small world up to a last one; return the folders of those after the base by stage."""
    answer = peso("train", f"stage={last}", f"output={output}", f"variant={variant}", *more, *SMALL)
    assert answer.code == 0, answer.err
    return {s: next(output.glob(f"synthetic/tiny/*/{variant}/seed_1/stage_{s}")) for s in range(2, last + 1)}


def weights_of(folder):
    return (folder / "adapter/adapter_model.safetensors").read_bytes()


def curve(folder, name):
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry[name] for entry in entries if name in entry]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def single(output):
    """The same adapter without a memory; the base that it leaves serves all."""
    return run(output, "plain", "method=single", last=3)


@pytest.fixture(scope="module")
def replay(output, single):
    """A stage's own data and 60 examples of the past."""
    return run(output, "replay", "method=replay", "memory.size=60", last=3)


def test_replay_trains_on_more_than_the_stage(single, replay):
    for stage in (2, 3):
        lineage = json.loads((replay[stage] / "lineage.json").read_text())
        assert lineage["composition"] == {"adapter": "evolving", "regularizer": "none", "memory": "replay"}
        assert lineage["trained_on"] == list(range(1, stage + 1))
        assert len(curve(replay[stage], "loss")) > len(curve(single[stage], "loss"))
    assert curve(replay[2], "validation_loss")[0] == curve(single[2], "validation_loss")[0]


@pytest.mark.parametrize("sampling", ["recent", "per_user"])
def test_the_sampling_decides_what_is_learnt(output, replay, sampling):
    other = run(output, sampling, "method=replay", "memory.size=60", f"memory.sampling={sampling}")
    assert weights_of(other[2]) != weights_of(replay[2])


def test_replay_is_equal_to_the_bit_and_follows_its_weights(output, replay):
    again = run(output, "again", "method=replay", "memory.size=60")
    lighter = run(output, "lighter", "method=replay", "memory.size=60", "memory.past_weight=0.2")
    assert weights_of(replay[2]) == weights_of(again[2]) != weights_of(lighter[2])
    assert len(curve(replay[2], "loss")) == len(curve(lighter[2], "loss"))
    assert curve(replay[2], "loss")[0] != curve(lighter[2], "loss")[0]
    assert curve(replay[2], "validation_loss")[0] == curve(lighter[2], "validation_loss")[0]


@pytest.mark.parametrize("memory", ["all", "replay"])
def test_a_past_without_weight_is_left_out(output, single, memory):
    weightless = run(output, f"{memory}_0", "method=single", f"memory={memory}", "memory.past_weight=0")
    assert weights_of(weightless[2]) == weights_of(single[2])
    assert curve(weightless[2], "loss") == curve(single[2], "loss")
