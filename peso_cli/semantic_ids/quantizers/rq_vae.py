"""RQ-VAE: residual quantization of the latent vector of an autoencoder, trained together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Natural, Positive
from peso_cli.semantic_ids.parts import Codes, Floats, Tick

Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Tensors = Mapping[str, NDArray[np.float32]]


@plain_dataclass(frozen=True, eq=False)
class Autoencoder:
    """Codebooks of latent vectors, with the encoder and the decoder.

    Attributes:
        weights: what `residual_vae.fit_vae` returns: the layers, the centres, mean and scale.
    """

    weights: Tensors

    @property
    def centers(self) -> tuple[Floats, ...]:
        """For each level, (codes, latent width) its centres."""
        return tuple(self.weights[name] for name in _numbered(self.weights, "centers.{}"))

    def latents(self, embeddings: Floats) -> Floats:
        """Return the (n, latent width) latents of (n, width) embeddings."""
        return self._through("encoder", (embeddings - self.weights["mean"]) / self.weights["scale"])

    def decode(self, latents: Floats) -> Floats:
        """Return the (n, width) embeddings that (n, latent width) sums of centres stand for."""
        return self._through("decoder", latents) * self.weights["scale"] + self.weights["mean"]

    def tensors(self) -> Tensors:
        """Return the weights."""
        return self.weights

    def _through(self, side: str, vectors: Floats) -> Floats:
        for place, name in enumerate(_numbered(self.weights, side + ".{}.weight")):
            vectors = np.maximum(vectors, 0) if place else vectors
            vectors = vectors @ self.weights[name].T + self.weights[f"{side}.{place}.bias"]
        return vectors


def _numbered(weights: Tensors, name: str) -> list[str]:
    """Return the names from 0 on that are there, in order."""
    return [name.format(n) for n in range(len(weights)) if name.format(n) in weights]


@dataclass(frozen=True, config=STRICT)
class RQVAE:
    """RQ-VAE (Zeghidour et al. 2021; TIGER, arXiv 2305.05065), its last level balanced as in LC-Rec (arXiv 2311.09049).

    Training is of a number of steps, not epochs, so that it takes about the same time with any number of items. The
    same seed gives the same bytes with any number of threads: it takes one.

    Attributes:
        levels: number of codes in a semantic ID.
        codes: number of codes of each level.
        hidden: widths of the encoder's hidden layers; the decoder has them backwards.
        latent: width of the latent vector.
        steps: training steps.
        warmup: how many of them, at the start, train the autoencoder without codebooks, which then start from the
            k-means of its latents.
        batch: embeddings of a step.
        learning_rate: of AdamW, at the start; it falls to a tenth.
        commitment: weight of the commitment loss beside the codebook loss.
        sinkhorn_epsilon: temperature with which codes of the last level share a batch evenly, as a share of the mean
            distance beyond the nearest centre; the fitted items are assigned evenly, too. 0: nearest codes.
        sinkhorn_iterations: rounds of Sinkhorn-Knopp in a step.
        restart_dead: steps after which codes that were not used restart from random latents of the batch; 0: never.
    """

    levels: Annotated[int, Field(strict=True, ge=1, le=16)]
    codes: Annotated[int, Field(strict=True, ge=2, le=65_536)]
    hidden: tuple[Positive, ...]
    latent: Positive
    steps: Positive
    warmup: Natural
    batch: Positive
    learning_rate: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    commitment: Amount
    sinkhorn_epsilon: Amount
    sinkhorn_iterations: Positive
    restart_dead: Natural
    name: str

    def fit(self, embeddings: Floats, seed: int, tick: Tick) -> tuple[Autoencoder, Codes]:
        """Train on (n, width) embeddings, which may be a memory map.

        Returns:
            The codebooks and the (n, levels) codes of the embeddings.

        Raises:
            InputError: there are fewer distinct embeddings than codes, or `warmup` leaves no step for the codebooks.
        """
        from peso_cli.errors import InputError
        from peso_cli.semantic_ids.residual import encode
        from peso_cli.semantic_ids.residual_vae import Training, fit_vae
        from peso_cli.semantic_ids.shares import even_last
        from peso_cli.semantic_ids.threads import one_thread

        if self.warmup >= self.steps:
            raise InputError(f"quantizer.warmup={self.warmup} must be less than quantizer.steps={self.steps}")
        settings = {key: getattr(self, key) for key in Training.__dataclass_fields__ if key != "widths"}
        training = Training(**settings, widths=(*self.hidden, self.latent))
        with one_thread():
            found = Autoencoder(fit_vae(embeddings, training, seed, tick))
            codes = encode(found, embeddings)
            return found, even_last(found, embeddings, codes) if self.sinkhorn_epsilon else codes

    def load(self, tensors: Tensors) -> Autoencoder:
        """Make codebooks again from their tensors."""
        return Autoencoder(dict(tensors))
