import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.methods.subspaces import COMPLEMENT, SUBSPACE, Split, as_state, design, keep, nothing_kept, of_state

thresholds = st.floats(0, 1)
dimensions = st.integers(1, 10)
seeds = st.integers(0, 1000)


def moment_of(size, seed, rank=None):
    """The second moment of inputs that lie in few dimensions, some much weaker than others."""
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(20, size if rank is None else rank, generator=random, dtype=torch.float64)
    mix = torch.randn(inputs.shape[1], size, generator=random, dtype=torch.float64)
    inputs = (inputs * torch.logspace(0, -2, inputs.shape[1], dtype=torch.float64)) @ mix
    return inputs.mT @ inputs / len(inputs)


moments = st.builds(
    lambda size, ranks, seed: [moment_of(size, seed + n, min(size, rank)) for n, rank in enumerate(ranks)],
    dimensions,
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seeds,
)


def grown(every, threshold):
    """The splits after each of several stages."""
    splits = [nothing_kept(len(every[0]))]
    for moment in every:
        splits.append(keep(splits[-1], moment, threshold))
    return splits[1:]


def projector(basis):
    return basis @ basis.mT


def close(found, expected, tolerance=1e-10):
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() if found.numel() else 0) < tolerance


def energy(basis, moment):
    return float((basis.mT @ moment @ basis).trace())


@settings(max_examples=60, deadline=None)
@given(moments, thresholds)
def test_both_parts_together_are_an_orthonormal_basis_at_every_stage(every, threshold):
    for split in grown(every, threshold):
        whole = torch.cat([split.inside, split.outside], dim=1)
        close(whole.mT @ whole, torch.eye(len(every[0]), dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(moments, thresholds)
def test_the_inside_holds_the_threshold_of_the_energy_and_one_direction_less_would_not(every, threshold):
    before = nothing_kept(len(every[0]))
    for moment, split in zip(every, grown(every, threshold), strict=True):
        total = float(moment.trace())
        assert energy(split.inside, moment) >= threshold * total - 1e-9 * total
        if split.inside.shape[1] > before.inside.shape[1]:
            fewer = split.inside[:, :-1]
            assert energy(fewer, moment) < threshold * total + 1e-9 * total
        before = split


@settings(max_examples=60, deadline=None)
@given(moments, thresholds)
def test_what_is_kept_once_stays_kept(every, threshold):
    splits = grown(every, threshold)
    for earlier, later in itertools.pairwise(splits):
        assert later.inside.shape[1] >= earlier.inside.shape[1]
        close(projector(later.inside) @ earlier.inside, earlier.inside)


@settings(max_examples=60, deadline=None)
@given(dimensions, seeds, st.floats(0.01, 1))
def test_the_first_stage_keeps_the_inputs_leading_principal_directions(size, seed, threshold):
    moment = moment_of(size, seed)
    inside = keep(nothing_kept(size), moment, threshold).inside
    assert inside.shape[1] > 0
    leading = torch.linalg.eigh(moment).eigenvalues.flip(0)[: inside.shape[1]]
    close(inside.mT @ moment @ inside, torch.diag(leading), 1e-8 * float(moment.trace()))


@settings(max_examples=60, deadline=None)
@given(moments, thresholds)
def test_what_is_written_is_the_smaller_part_and_gives_the_same_projector(every, threshold):
    for split in grown(every, threshold):
        ((key, basis),) = as_state({"a.b": split}).items()
        size, inside = len(every[0]), split.inside.shape[1]
        assert key == f"a.b.{SUBSPACE if 2 * inside <= size else COMPLEMENT}"
        assert basis.shape == (size, min(inside, size - inside))
        (read,) = of_state({key: basis, "a.b.A": basis, "a.b.B": basis}).values()
        close(projector(read.inside), projector(split.inside), 1e-5)
        whole = torch.cat([read.inside, read.outside], dim=1)
        close(whole.mT @ whole, torch.eye(size, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(moments, thresholds)
def test_a_memory_that_was_written_in_between_goes_on_holding_the_threshold(every, threshold):
    split = nothing_kept(len(every[0]))
    for moment in every:
        (read,) = of_state(as_state({"m": split})).values()
        split = keep(read, moment, threshold)
        assert split.inside.shape[1] >= read.inside.shape[1]
        assert energy(split.inside, moment) >= (threshold - 1e-9) * float(moment.trace())


@settings(max_examples=80, deadline=None)
@given(moments, thresholds, dimensions)
def test_an_a_reads_nothing_of_what_is_kept_and_has_orthogonal_rows(every, threshold, rank):
    *earlier, now = every
    split = grown(earlier, threshold)[-1] if earlier else nothing_kept(len(now))
    a = design(split, now, rank)
    assert a.shape == (rank, len(now))
    close(a @ split.inside, torch.zeros(rank, split.inside.shape[1], dtype=torch.float64))
    full = min(rank, split.outside.shape[1])
    expected = torch.zeros(rank, dtype=torch.float64)
    expected[:full] = 1 / 3
    close(a @ a.mT, torch.diag(expected))
    assert not a[full:].any()


@settings(max_examples=60, deadline=None)
@given(moments, st.floats(0, 0.9), st.integers(1, 3))
def test_an_a_reads_as_much_of_the_rest_as_that_many_directions_can(every, threshold, rank):
    *earlier, now = every
    split = grown(earlier, threshold)[-1] if earlier else nothing_kept(len(now))
    a = design(split, now, rank)
    singular = torch.linalg.svdvals(projector(split.outside) @ torch.linalg.cholesky(now + 1e-12 * torch.eye(len(now))))
    best = float(singular[:rank].square().sum()) / 3
    assert float((a @ now @ a.mT).trace()) == pytest.approx(best, abs=1e-9 * float(now.trace()) + 1e-9)


@settings(max_examples=60, deadline=None)
@given(dimensions, seeds, st.floats(0.5, 1), st.integers(1, 4))
def test_past_inputs_reach_an_a_with_no_more_than_the_share_that_is_not_kept(size, seed, threshold, rank):
    past, now = moment_of(size, seed), moment_of(size, seed + 1)
    a = design(keep(nothing_kept(size), past, threshold), now, rank)
    total = float(past.trace())
    assert 3 * float((a @ past @ a.mT).trace()) <= (1 - threshold) * total + 1e-9 * total


def test_entries_are_as_large_as_those_of_a_fresh_lora():
    size, rank = 64, 8
    a = design(nothing_kept(size), moment_of(size, 0), rank)
    fresh = torch.nn.Linear(size, rank, bias=False).weight  # uniform in +-1/sqrt(in), as in peft
    assert float(a.square().mean()) == pytest.approx(1 / (3 * size), rel=1e-9)
    assert float(a.square().mean()) == pytest.approx(float(fresh.detach().square().mean()), rel=0.2)


@settings(max_examples=40, deadline=None)
@given(dimensions, seeds)
def test_the_entry_of_the_largest_size_is_positive_in_every_row(size, seed):
    for row in design(nothing_kept(size), moment_of(size, seed), size):
        assert row[row.abs().argmax()] > 0


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_without_inputs_nothing_is_kept_and_any_orthonormal_a_will_do(threshold):
    nothing = torch.zeros(5, 5, dtype=torch.float64)
    split = keep(nothing_kept(5), nothing, threshold)
    assert split.inside.shape == (5, 0)
    close(3 * design(split, nothing, 3) @ design(split, nothing, 3).mT, torch.eye(3, dtype=torch.float64))
    (read,) = of_state(as_state({"m": split})).values()
    close(projector(read.outside), torch.eye(5, dtype=torch.float64))


def test_where_everything_is_kept_a_is_zero():
    everything = Split(torch.eye(4).double(), torch.zeros(4, 0).double())
    assert torch.equal(design(everything, moment_of(4, 0), 2), torch.zeros(2, 4, dtype=torch.float64))
    assert keep(everything, moment_of(4, 0), 1.0).inside.shape == (4, 4)


def test_equal_inputs_give_equal_bytes():
    past, now = moment_of(30, 0), moment_of(30, 1)
    one, other = (design(keep(nothing_kept(30), past.clone(), 0.9), now.clone(), 4) for _ in range(2))
    assert torch.equal(one, other)
    assert math.isfinite(float(one.sum()))
