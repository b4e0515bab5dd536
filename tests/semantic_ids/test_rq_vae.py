"""RQ-VAE: its gradients and losses by hand, dead codes, and that training leads somewhere, the same way every time."""

import numpy as np
import pytest
import torch
from embedded import as_bytes, clumps, silent

from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids.quantizers.rq_vae import RQVAE
from peso_cli.semantic_ids.residual import encode, reconstruction_error
from peso_cli.semantic_ids.residual_vae import Training, assigned, quantize, restart

EMBEDDINGS = clumps()
SMALL = {
    "levels": 3,
    "codes": 8,
    "hidden": (24,),
    "latent": 6,
    "steps": 150,
    "warmup": 50,
    "batch": 64,
    "learning_rate": 5e-3,
    "commitment": 0.25,
    "sinkhorn_epsilon": 0.05,
    "sinkhorn_iterations": 10,
    "restart_dead": 20,
}


def quantizer(**changes):
    return RQVAE(**(SMALL | {"name": "v"} | changes))


def fitted(embeddings=EMBEDDINGS, seed=1, **changes):
    return quantizer(**changes).fit(embeddings, seed, silent)


def training(**changes):
    chosen = SMALL | {"sinkhorn_epsilon": 0.0} | changes
    widths = (*chosen.pop("hidden"), chosen.pop("latent"))
    return Training(**chosen, widths=widths)


@pytest.fixture(scope="module")
def trained():
    return fitted()


def test_losses_and_gradients_are_those_worked_out_by_hand():
    latents = torch.tensor([[1.0, 2.0]], requires_grad=True)
    centers = torch.tensor([[[0.0, 2.5], [9.0, 9.0]], [[0.5, 0.0], [-9.0, 0.0]]], requires_grad=True)
    found = quantize(latents, centers, training(levels=2, codes=2, commitment=0.5))
    # Level 1 takes (0, 2.5) and leaves (1, -.5): mean square .625. Level 2 takes (.5, 0), leaves (.5, -.5): .25.
    assert found.codes.tolist() == [[0], [0]]
    assert found.latents.tolist() == [[0.5, 2.5]]
    assert found.loss.item() == pytest.approx(1.5 * (0.625 + 0.25))
    assert found.left.tolist() == [[[1.0, 2.0]], [[1.0, -0.5]]]
    found.loss.backward()
    # Of a mean square over two numbers the gradient is the difference; the commitment loss counts half.
    torch.testing.assert_close(latents.grad, 0.5 * torch.tensor([[1.0 + 0.5, -0.5 - 0.5]]))
    torch.testing.assert_close(centers.grad[:, 0], torch.tensor([[-1.0, 0.5], [-0.5, 0.5]]))
    assert not centers.grad[:, 1].any()


def test_the_decoders_gradient_goes_straight_through_to_the_latents_and_not_to_the_centres():
    latents = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    centers = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    direction = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    (quantize(latents, centers, training(levels=2, codes=4)).latents * direction).sum().backward()
    torch.testing.assert_close(latents.grad, direction)
    assert centers.grad is None or not centers.grad.any()


def test_balanced_codes_share_a_batch_where_nearest_ones_do_not():
    left = torch.from_numpy(clumps(rows=400, width=4, kinds=3))
    centers = left[:8].clone()
    plain = torch.bincount(assigned(left, centers, 0.0, 0), minlength=8)
    even = torch.bincount(assigned(left, centers, 0.02, 50), minlength=8)
    assert plain.max() > 80
    assert plain.min() < 20
    assert even.max() < 65
    assert even.min() > 35


def test_dead_codes_restart_from_latents_of_the_batch_and_others_stay():
    centers = torch.arange(12.0).reshape(2, 3, 2)
    before, left = centers.clone(), 100 + torch.arange(16.0).reshape(2, 4, 2)
    restart(centers, torch.tensor([[1, 0, 5], [2, 1, 0]]), left, torch.Generator().manual_seed(0))
    assert centers[0, 1].tolist() in left[0].tolist()
    assert centers[1, 2].tolist() in left[1].tolist()
    kept = [(0, 0), (0, 2), (1, 0), (1, 1)]
    assert all(torch.equal(centers[at], before[at]) for at in kept)


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_global_generator_alone(trained):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = fitted()
    assert as_bytes(again[0].tensors(), again[1]) == as_bytes(trained[0].tensors(), trained[1])
    assert torch.equal(torch.get_rng_state(), state)
    other = fitted(seed=2)
    assert as_bytes(other[0].tensors(), other[1]) != as_bytes(trained[0].tensors(), trained[1])


def test_the_number_of_threads_changes_no_byte_and_is_left_as_it_was():
    embeddings, before, found = clumps(rows=2000, width=48), torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        codebooks, codes = fitted(embeddings, hidden=(256,), batch=512, steps=30, warmup=10)
        assert torch.get_num_threads() == threads
        found.append(as_bytes(codebooks.tensors(), codes))
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_codebooks_made_again_from_their_tensors_give_the_same_codes(trained):
    later = clumps(seed=5)
    again = quantizer().load(dict(trained[0].tensors()))
    np.testing.assert_array_equal(encode(again, later), encode(trained[0], later))
    assert reconstruction_error(again, EMBEDDINGS, trained[1]) == reconstruction_error(
        *[trained[0], EMBEDDINGS, trained[1]]
    )


def test_the_codes_tell_more_than_the_mean_and_the_last_level_is_even(trained):
    codebooks, codes = trained
    assert reconstruction_error(codebooks, EMBEDDINGS, codes) < 0.5
    np.testing.assert_array_equal(codes[:, :2], encode(codebooks, EMBEDDINGS)[:, :2])
    assert np.ptp(np.bincount(codes[:, 2], minlength=8)) <= 1
    assert all(len(np.unique(level)) == 8 for level in codes.T)


def test_without_balance_codes_are_the_nearest_ones():
    codebooks, codes = fitted(sinkhorn_epsilon=0.0)
    np.testing.assert_array_equal(codes, encode(codebooks, EMBEDDINGS))


def test_progress_counts_every_step():
    seen = []
    quantizer(steps=5, warmup=2).fit(EMBEDDINGS, 1, lambda *tick: seen.append(tick[:2]))
    assert seen == [(step, 5) for step in range(1, 6)]


def test_too_few_distinct_embeddings_or_steps_are_refused():
    with pytest.raises(InputError, match="only 7 are distinct"):
        fitted(np.tile(EMBEDDINGS[:7], (43, 1)))
    with pytest.raises(InputError, match=r"warmup=150 must be less than quantizer\.steps=150"):
        fitted(warmup=150)


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30}, {"commitment": 1e39}], ids=["rate", "commitment"])
def test_training_that_diverges_is_refused_and_makes_no_codes(changes):
    with pytest.raises(RunError, match=r"^the quantizer's loss is .* at step \d+, .*; lower quantizer.learning_rate$"):
        fitted(**changes)
