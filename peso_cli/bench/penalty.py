"""`peso bench regularizer`: what each penalty costs beside a training step, and how exact it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from peso_cli.bench.cases import Case, adapted, perturb
from peso_cli.bench.measure import side_by_side
from peso_cli.methods.lora import lora_factors
from peso_cli.methods.parts import Factors, Regularizer, RegularizerStart, Step
from peso_cli.methods.regularizers.l2 import L2
from peso_cli.methods.regularizers.o_lora import OLoRA
from peso_cli.methods.regularizers.orthogonal import Orthogonal
from peso_cli.methods.regularizers.quadratic import Quadratic
from peso_cli.methods.regularizers.rank_kl import RankKL
from peso_cli.methods.regularizers.softmax_kl import SoftmaxKL
from peso_cli.stages import Display
from peso_cli.training.layouts import Packed
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import shared
from peso_cli.training.steps import add_penalty, label_loss

Document = dict[str, Any]

_STEPS = (1e-4, 1e-2, 1.0)
"""How far, relative to its own entries, a factor is moved when the exactness of its penalty is looked at."""


def _regularizers() -> dict[str, Regularizer]:
    """Return all that hold factors to earlier ones, by the names of their rows."""
    shared: Document = {"strength": 1.0, "reduction": "mean", "anchors": "latest", "scale": "published"}
    shared["schedule"] = "constant"
    return {
        "softmax_kl": SoftmaxKL(**shared, group="factor", smoothing=0.0),
        "softmax_kl, layers": SoftmaxKL(**shared, group="layer", smoothing=0.0),
        "softmax_kl, smoothed": SoftmaxKL(**shared, group="factor", smoothing=1e-8),
        "rank_kl": RankKL(**shared),
        "quadratic": Quadratic(**shared, group="factor"),
        "l2": L2(**shared, group="factor", unsquared=False),
        "orthogonal": Orthogonal(**shared),
        "o_lora": OLoRA(**shared),
    }


def bench_penalty(case: Case, repeats: int, display: Display) -> Document:
    """Measure penalties.

    Args:
        case: what is measured.
        repeats: how often each is timed.
        display: shows progress.
    """
    model = adapted(case)
    perturb(model, 0.05, case.config.seed)
    factors = lora_factors(model)
    flat = [factor for pair in factors.values() for factor in pair]
    anchors = [factor.detach().clone() for factor in flat]
    regularizers = _regularizers()
    penalties = {
        name: regularizer.begin(RegularizerStart(model, factors)) for name, regularizer in regularizers.items()
    }
    _move(flat, anchors, 1e-2)
    step = _training_step(case, model)
    step()
    ways: dict[str, Callable[[], object]] = {"training step": step}
    for name, penalty in penalties.items():
        assert penalty is not None
        ways[name] = lambda penalty=penalty: add_penalty(penalty, flat, Step())  # type: ignore[misc]
    ways["softmax_kl, module by module"] = lambda: _module_by_module(factors, anchors)
    times = side_by_side(ways, repeats, display.bar("timing"))
    whole = times["training step"].median
    return {
        "bench": "regularizer",
        "backbone": case.config.backbone.name,
        "prompt": case.config.prompt.name,
        "factors": len(flat),
        "parameters": sum(factor.numel() for factor in flat),
        "batch_tokens": case.config.trainer.batch_tokens,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "ways": {
            n: {
                "seconds": list(t.seconds),
                "milliseconds": 1e3 * t.median,
                "spread": t.spread,
                "share": t.median / whole,
            }
            for n, t in times.items()
        },
        "softmax_kl_error": {str(size): _error(regularizers["softmax_kl"], factors, anchors, size) for size in _STEPS},
    }


def _training_step(case: Case, model: nn.Module) -> Callable[[], object]:
    found = shared(case.sample("train", 2000))
    packer = Packer((found,), Packed(case.backbone.prompt), case.config.trainer.batch_tokens)
    batch = packer.batch(packer.plan((0,))[0])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=0.0)

    def step() -> None:
        (label_loss(model, batch, case.config.trainer.temperature) / len(batch.labels)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        model.zero_grad(set_to_none=False)

    return step


def _move(factors: list[Tensor], anchors: list[Tensor], size: float) -> None:
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for factor, anchor in zip(factors, anchors, strict=True):
            step = torch.randn(anchor.shape, generator=noise).to(anchor.device) * anchor.std() * size
            factor.copy_(anchor + step)


def _module_by_module(factors: Factors, anchors: list[Tensor]) -> None:
    """Take the penalty as research code does: two softmaxes for every factor, each value fetched for the log."""
    before, total = iter(anchors), 0.0
    for pair in factors.values():
        for factor in pair:
            log_p, log_q = (x.flatten().log_softmax(-1) for x in (factor, next(before)))
            divergence = (log_p.exp() * (log_p - log_q)).sum()
            divergence.backward()  # type: ignore[no-untyped-call]
            total += float(divergence.detach())


def _error(regularizer: Regularizer, factors: Factors, anchors: list[Tensor], size: float) -> Document:
    """Return how far value and gradient are from those of the definition in more than float64, relative."""
    flat = [factor for pair in factors.values() for factor in pair]
    _move(flat, anchors, 0.0)
    penalty = regularizer.begin(RegularizerStart(nn.Module(), factors))
    assert penalty is not None
    _move(flat, anchors, size)
    value = len(factors) * penalty.value(Step())
    gradients = torch.autograd.grad(value, flat)
    exact_value, exact_gradients = np.longdouble(0), []
    for factor, anchor in zip(flat, anchors, strict=True):
        divergence, gradient = _exact(factor.detach().cpu().numpy(), anchor.cpu().numpy())
        exact_value += divergence
        exact_gradients.append(torch.from_numpy(gradient))
    mine = torch.cat([g.double().cpu().flatten() for g in gradients])
    exact = torch.cat(exact_gradients)
    return {
        "value": float(abs(value.item() - exact_value) / exact_value),
        "gradient": float((mine - exact).norm() / exact.norm()),
    }


def _exact(now: NDArray[np.float32], anchor: NDArray[np.float32]) -> tuple[np.longdouble, NDArray[np.float64]]:
    """Return KL(softmax(now) || softmax(anchor)) and its gradient by definition, in the longest numbers there are."""
    x, y = now.astype(np.longdouble).reshape(-1), anchor.astype(np.longdouble).reshape(-1)
    log_p, log_q = (z - z.max() - np.log(np.exp(z - z.max()).sum()) for z in (x, y))
    p = np.exp(log_p)
    value = (p * (log_p - log_q)).sum()
    return value, (p * (log_p - log_q - value)).astype(np.float64)
