"""Training an RQ-VAE: an autoencoder whose latent vector is quantized level by level.

Zeghidour et al. 2021 (SoundStream, arXiv 2107.03312); for semantic IDs Rajput et al. 2023 (TIGER, arXiv 2305.05065);
balanced last level after Zheng et al. 2023 (LC-Rec, arXiv 2311.09049).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from peso_cli.errors import RunError
from peso_cli.semantic_ids.clustering import check_distinct, clustered
from peso_cli.semantic_ids.parts import Floats, Tick
from peso_cli.semantic_ids.residual import CHUNK
from peso_cli.semantic_ids.shares import even_prices

Layer = tuple[Tensor, Tensor]

_SAMPLE = 50_000
"""Most embeddings from whose latents the codebooks start."""


@dataclass(frozen=True)
class Training:
    """How an RQ-VAE is trained; the attributes are those of `quantizers.rq_vae.RQVAE`."""

    levels: int
    codes: int
    widths: Sequence[int]
    steps: int
    warmup: int
    batch: int
    learning_rate: float
    commitment: float
    sinkhorn_epsilon: float
    sinkhorn_iterations: int
    restart_dead: int


@dataclass(frozen=True, eq=False)
class Network:
    """What is trained.

    Attributes:
        encoder: weight (out, in) and bias (out,) of each layer, from the embedding to the latent vector.
        decoder: the same backwards.
        centers: (levels, codes, latent width).
    """

    encoder: list[Layer]
    decoder: list[Layer]
    centers: Tensor

    def parameters(self) -> list[Tensor]:
        """Return everything that is trained."""
        return [tensor for layer in (*self.encoder, *self.decoder) for tensor in layer] + [self.centers]


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized batch.

    Attributes:
        latents: (n, latent width) sums of centres; their gradient is that of the latents that were quantized.
        loss: codebook loss plus commitment times commitment loss, summed over the levels.
        codes: (levels, n).
        left: (levels, n, latent width) what each level was to quantize.
    """

    latents: Tensor
    loss: Tensor
    codes: Tensor
    left: Tensor


def fit_vae(embeddings: Floats, training: Training, seed: int, tick: Tick) -> dict[str, NDArray[np.float32]]:
    """Train on (n, width) embeddings, which may be a memory map, and return all tensors by name.

    First the autoencoder alone, then, from the k-means of its latents, with the codebooks. `mean` and `scale` take the
    embeddings to mean 0 and mean square 1.

    Raises:
        InputError: there are fewer distinct embeddings than codes.
        RunError: the loss or a gradient is not finite.
    """
    check_distinct(embeddings, training.codes, "quantizer.codes")
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(embeddings), generator=generator)[:_SAMPLE].sort().values.numpy()
    mean, scale = _moments(embeddings[sample])
    network = new_network(embeddings.shape[1], training, generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=0.0)
    used = torch.zeros(training.levels, training.codes, dtype=torch.long)
    for step in range(training.steps):
        if step == training.warmup:
            start_centers(network, torch.from_numpy((embeddings[sample] - mean) / scale), seed)
        _set_rate(optimizer, training.learning_rate, step / training.steps)
        rows = torch.randint(len(embeddings), (training.batch,), generator=generator).numpy()
        batch = torch.from_numpy((embeddings[rows] - mean) / scale)
        loss, quantized = losses(network, batch, training, step >= training.warmup)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _refuse_divergence(step + 1, loss, network)
        optimizer.step()
        if quantized is not None:
            used += _counted(quantized.codes, training.codes)
            if _restarts(step, training):
                restart(network.centers, used, quantized.left, generator)
                used.zero_()
        tick(step + 1, training.steps, f"loss {loss.item():.3f}")
    return named(network) | {"mean": mean, "scale": np.array([scale], np.float32)}


def _refuse_divergence(step: int, loss: Tensor, network: Network) -> None:
    """Raise a RunError where a step would be taken with numbers that aren't finite."""
    gradients = [tensor.grad for tensor in network.parameters() if tensor.grad is not None]
    size = torch.nn.utils.get_total_norm(gradients)
    if not (torch.isfinite(loss) and torch.isfinite(size)):
        raise RunError(
            f"the quantizer's loss is {loss.item():.4g} at step {step}, the norm of its gradient {size.item():.4g}; "
            "lower quantizer.learning_rate"
        )


def losses(network: Network, batch: Tensor, training: Training, quantizing: bool) -> tuple[Tensor, Quantized | None]:
    """Return the mean squared error of a (n, width) batch plus the quantizer's losses, and its quantization.

    Args:
        network: what is trained.
        batch: (n, width).
        training: the settings.
        quantizing: whether the latents are quantized; else the network is an autoencoder.
    """
    latents = forward(network.encoder, batch)
    if not quantizing:
        return functional.mse_loss(forward(network.decoder, latents), batch), None
    quantized = quantize(latents, network.centers, training)
    return functional.mse_loss(forward(network.decoder, quantized.latents), batch) + quantized.loss, quantized


def quantize(latents: Tensor, centers: Tensor, training: Training) -> Quantized:
    """Quantize (n, latent width) latents level by level, straight through: see `Quantized`.

    The losses of a level are mean squares: |sg(left) - centre|^2 + commitment |left - sg(centre)|^2.
    """
    left, total, loss = latents, torch.zeros_like(latents), latents.new_zeros(())
    codes, lefts = [], []
    for level, level_centers in enumerate(centers):
        epsilon = training.sinkhorn_epsilon if level == len(centers) - 1 else 0.0
        codes.append(assigned(left.detach(), level_centers.detach(), epsilon, training.sinkhorn_iterations))
        lefts.append(left.detach())
        chosen = level_centers[codes[-1]]
        loss = loss + functional.mse_loss(chosen, left.detach())
        loss = loss + training.commitment * functional.mse_loss(left, chosen.detach())
        left, total = left - chosen.detach(), total + chosen.detach()
    return Quantized(latents + (total - latents).detach(), loss, torch.stack(codes), torch.stack(lefts))


def assigned(left: Tensor, centers: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Return the (n,) codes of the nearest centres; with an epsilon, by distances that share the batch out evenly."""
    found = centers.square().sum(dim=1) - 2 * left @ centers.T
    if epsilon:
        found = found - torch.from_numpy(even_prices(found.numpy(), (epsilon,), iterations))
    return found.argmin(dim=1)


def restart(centers: Tensor, used: Tensor, left: Tensor, generator: torch.Generator) -> None:
    """Put the centres of dead codes on random vectors of the last batch, in place.

    Args:
        centers: (levels, codes, latent width).
        used: (levels, codes) how often each was chosen.
        left: (levels, n, latent width) what each level was to quantize.
        generator: of the choice.
    """
    with torch.no_grad():
        for level, code in (used == 0).nonzero().tolist():
            centers[level, code] = left[level, torch.randint(left.shape[1], (), generator=generator)]


def start_centers(network: Network, embeddings: Tensor, seed: int) -> None:
    """Start the codebooks, in place, from k-means of the latents, level by level on what is left over."""
    with torch.no_grad():
        left = torch.cat(
            [forward(network.encoder, some) for some in torch.tensor_split(embeddings, -(-len(embeddings) // CHUNK))]
        )
        for level in range(len(network.centers)):
            found = clustered(left.numpy(), network.centers.shape[1], 10, seed + level)
            network.centers[level] = torch.from_numpy(found)
            left -= network.centers[level][assigned(left, network.centers[level], 0.0, 0)]


def forward(layers: Sequence[Layer], vectors: Tensor) -> Tensor:
    """Return what linear layers with ReLU between them make of (n, in) vectors."""
    for place, (weight, bias) in enumerate(layers):
        vectors = functional.linear(functional.relu(vectors) if place else vectors, weight, bias)
    return vectors


def new_network(width: int, training: Training, generator: torch.Generator) -> Network:
    """Return a network of random layers, with all centres at 0."""
    sizes = [width, *training.widths]
    encoder = [_layer(inputs, outputs, generator) for inputs, outputs in pairwise(sizes)]
    decoder = [_layer(inputs, outputs, generator) for inputs, outputs in pairwise(reversed(sizes))]
    return Network(encoder, decoder, torch.zeros(training.levels, training.codes, sizes[-1], requires_grad=True))


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> Layer:
    """Weights that keep the variance through a ReLU (He et al. 2015, arXiv 1502.01852)."""
    weight = torch.randn(outputs, inputs, generator=generator) * (2 / inputs) ** 0.5
    return weight.requires_grad_(), torch.zeros(outputs, requires_grad=True)


def named(network: Network) -> dict[str, NDArray[np.float32]]:
    """Return the network's tensors by name: `encoder.0.weight`, `encoder.0.bias`, …, `centers.0`, …"""
    found = {f"centers.{level}": centers for level, centers in enumerate(network.centers)}
    for side, layers in (("encoder", network.encoder), ("decoder", network.decoder)):
        for place, (weight, bias) in enumerate(layers):
            found |= {f"{side}.{place}.weight": weight, f"{side}.{place}.bias": bias}
    return {name: tensor.detach().numpy().copy() for name, tensor in found.items()}


def _moments(embeddings: Floats) -> tuple[Floats, np.float32]:
    mean = embeddings.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.float32(np.sqrt(np.square(embeddings - mean).mean()))


def _set_rate(optimizer: torch.optim.Optimizer, highest: float, done: float) -> None:
    """Let the learning rate fall to a tenth along half a cosine."""
    for group in optimizer.param_groups:
        group["lr"] = highest * (0.55 + 0.45 * float(np.cos(np.pi * done)))


def _counted(codes: Tensor, count: int) -> Tensor:
    return torch.stack([torch.bincount(level, minlength=count) for level in codes])


def _restarts(step: int, training: Training) -> bool:
    """Whether dead codes restart after a step; not in the last tenth, so that those that did can settle."""
    every = training.restart_dead
    return every > 0 and (step + 1 - training.warmup) % every == 0 and step < 0.9 * training.steps
