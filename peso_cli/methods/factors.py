"""Finding the LoRA factors in a model."""

from __future__ import annotations

from torch import nn

from peso_cli.methods.regularizers import Factors


def lora_factors(model: nn.Module, adapter: str = "default") -> Factors:
    """Return each target module's live A (rank, in) and B (out, rank), by module name; empty without an adapter."""
    found = {}
    for name, module in model.named_modules():
        for a, b in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            if adapter in getattr(module, a, {}):
                found[name] = (_weight(getattr(module, a)[adapter]), _weight(getattr(module, b)[adapter]))
    return found


def _weight(factor: nn.Module | nn.Parameter) -> nn.Parameter:
    weight = factor if isinstance(factor, nn.Parameter) else factor.weight
    assert isinstance(weight, nn.Parameter)
    return weight
