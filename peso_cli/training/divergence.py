"""Telling whether a step, or the state that steps have led to, rests on numbers that are not finite, and on which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

from peso_cli.errors import DivergedError
from peso_cli.training.steps import Pull

_RATE, _STRENGTH = "trainer.learning_rate", "regularizer.strength"

_WORDS = {
    "loss": ("the loss", (_RATE, _STRENGTH)),
    "penalty": ("the penalty", (_STRENGTH,)),
    "loss_gradient": ("the norm of the loss's gradient", (_RATE, _STRENGTH)),
    "penalty_gradient": ("the norm of the penalty's gradient", (_STRENGTH,)),
    "gradient_norm": ("the norm of the gradient", (_RATE, _STRENGTH)),
}
"""What a step rests on, in the order in which one makes the next: how it is called, and what to lower."""


def refused_step(step: int, loss: float, pull: Pull | None, gradient: float) -> DivergedError | None:
    """Return why an optimiser step can't be taken; None where all that it rests on is finite.

    Args:
        step: its 1-based number.
        loss: the cross-entropy.
        pull: how hard the penalty pulls; None without one.
        gradient: the norm of the whole gradient.
    """
    known = {"loss": loss, **(asdict(pull) if pull else {}), "gradient_norm": gradient}
    broken = next((name for name in _WORDS if not math.isfinite(known.get(name, 0.0))), None)
    if broken is None:
        return None
    words, keys = _WORDS[broken]
    rest = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in known.items() if name != broken)
    lower = _lower(keys, pull is not None)
    return DivergedError(
        f"step {step}: {words} is {known[broken]} ({rest}); the step was not taken. {lower}",
        {"step": step, "what": broken, **_plain(known)},
    )


def refused_state(epoch: int, step: int, loss: float, penalised: bool) -> DivergedError | None:
    """Return why training can't go on from a state with a validation loss; None where that is finite.

    Args:
        epoch: whole epochs done, and
        step: steps done.
        loss: the validation cross-entropy.
        penalised: whether a penalty was added to the loss.
    """
    if math.isfinite(loss):
        return None
    lower = _lower((_RATE, _STRENGTH), penalised)
    if not epoch:
        lower = "The weights that the stage begins from, or their logits over trainer.temperature, aren't finite"
    where = f"after epoch {epoch}" if epoch else "before any training"
    known = {"step": step, "what": "validation_loss", **_plain({"validation_loss": loss})}
    return DivergedError(f"{where} the validation loss is {loss}. {lower}", known)


def _lower(keys: tuple[str, ...], penalised: bool) -> str:
    return "Lower " + " or ".join(key for key in keys if penalised or key != _STRENGTH)


def _plain(known: Mapping[str, float]) -> dict[str, float | str]:
    """Return numbers as JSON has them: it knows none that aren't finite."""
    return {name: value if math.isfinite(value) else str(value) for name, value in known.items()}
