"""Regularizers as their YAML files describe them, and penalties of factors that moved away from where they were."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor, nn

from peso_cli.config.compose import conf_folder
from peso_cli.methods.parts import Factors, Regularizer, RegularizerStart, Step

PLAIN = {"strength": 1.0, "reduction": "sum", "anchors": "latest", "scale": "published", "schedule": "constant"}


def chosen(name: str, **changes: Any) -> Any:
    """The regularizer of `conf/regularizer/<name>.yaml`, at strength 1 and summed, with some fields changed."""
    fields: Any = OmegaConf.to_container(OmegaConf.load(conf_folder() / "regularizer" / f"{name}.yaml"))
    return get_class(fields.pop("_target_"))(**{**fields, **PLAIN, **changes})


def penalty_of(regularizer: Regularizer, now: Factors, *past: Factors, progress: float = 0.0) -> Tensor:
    """The penalty of factors in a stage with these stages before it, oldest first."""
    penalty = regularizer.begin(RegularizerStart(nn.Module(), now, past))
    assert penalty is not None
    return penalty.value(Step(progress=progress))


def random_factors(modules: Any, seed: int = 0, dtype: torch.dtype = torch.float64, size: float = 1.0) -> Factors:
    """Factors of modules given as (rank, in, out)."""
    generator = torch.Generator().manual_seed(seed)

    def one(*shape: int) -> Tensor:
        return (size * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()

    return {f"m{n}": (one(rank, wide), one(high, rank)) for n, (rank, wide, high) in enumerate(modules)}


def moved(factors: Factors, size: float = 0.3, seed: int = 1) -> Factors:
    """The same factors after a random step."""
    steps = random_factors([(*a.shape, len(b)) for a, b in factors.values()], seed, torch.float64, size)
    return {
        name: tuple(
            (f + step).to(f.dtype).detach().requires_grad_() for f, step in zip(pair, steps[f"m{n}"], strict=True)
        )
        for n, (name, pair) in enumerate(factors.items())
    }


def gradients(value: Tensor, factors: Factors) -> tuple[Tensor, ...]:
    """The gradients by all factors, A and B by turns; zero for what the value leaves alone."""
    members = [factor for pair in factors.values() for factor in pair]
    found = torch.autograd.grad(value, members, allow_unused=True)
    return tuple(torch.zeros_like(m) if g is None else g for m, g in zip(members, found, strict=True))
