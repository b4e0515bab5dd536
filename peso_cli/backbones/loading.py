"""Loading a backbone with what the stages of a lineage learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peso_cli.artifacts import ADAPTER_FOLDER, Artifact
from peso_cli.backbones.build import vocabulary_weights
from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.config.schema import ConfigBackbone, PretrainedBackbone
from peso_cli.errors import InputError, RunError, nearest
from peso_cli.hybrid.settings import Hybrid
from peso_cli.two_tower.settings import TwoTower


def load_weights(model: PreTrainedModel, lineage: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Load the newest whole weights of a lineage into the backbone.

    Args:
        model: the backbone as it was before stage 1; changed in place.
        lineage: artifacts, stage 1 first.

    Returns:
        The artifacts that are not older than those weights and hold an adapter.
    """
    from safetensors.torch import load_model

    whole = [(index, artifact.weights) for index, artifact in enumerate(lineage) if artifact.weights]
    newest, weights = whole[-1] if whole else (0, None)
    if weights:  # these were trained in float32, whatever the backbone's own precision is
        model.to(torch.float32)  # type: ignore[arg-type]
        load_model(model, weights / "model.safetensors")
    return tuple(artifact for artifact in lineage[newest:] if artifact.adapter)


def load_for_inference(model: PreTrainedModel, lineage: Sequence[Artifact]) -> PreTrainedModel:
    """Return the backbone with everything a lineage learnt folded into its weights."""
    adapted = load_weights(model, lineage)
    return merge_adapter(model, adapted[-1].folder / ADAPTER_FOLDER) if adapted else model


def merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Fold the adapter of a folder into the weights of the backbone it was trained on.

    Raises:
        RunError: the folder holds no weights as safetensors, or damaged ones.
    """
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():
        # peft would look for pickled weights instead, or ask the hub.
        raise RunError(f"{adapter}: holds no adapter_model.safetensors; move the stage's folder away to train it anew")
    try:
        wrapped = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu")
    except SafetensorError as error:
        raise RunError(f"{adapter}: can't be read ({error}); move the stage's folder away to train it anew") from None
    inputs, outputs = wrapped.get_input_embeddings(), wrapped.get_output_embeddings()
    if hasattr(inputs, "lora_embedding_A") or hasattr(outputs, "lora_A"):
        # A LoRA changes one end of tied weights only, so that the head needs weights of its own to fold it into.
        head = getattr(outputs, "base_layer", outputs)
        head.weight = nn.Parameter(head.weight.detach().clone())
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged


def lora_arguments(
    config: ConfigBackbone | PretrainedBackbone | TwoTower | Hybrid, model: PreTrainedModel, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig for a backbone: shape, targets and which vocabulary rows train.

    Raises:
        InputError: a target names no layer, or one whose rows train already.
    """
    assert not isinstance(config, TwoTower | Hybrid)  # which can't be built as a model with layers
    lora = config.lora
    shape: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    shape["target_modules"] = list(lora.targets)
    _check_targets(lora.targets, model)
    return shape if isinstance(config, ConfigBackbone) else {**shape, **_row_arguments(config, model, vocabulary)}


def _row_arguments(config: PretrainedBackbone, model: PreTrainedModel, vocabulary: Vocabulary) -> dict[str, Any]:
    """Say which rows of the embedding and the head train; where the two are tied, peft ties what it puts there."""
    ends, rows = _ends(model), config.trained_rows
    tied = len(vocabulary_weights(model)) == 1
    for target in config.lora.targets:
        if any(_matches(end, target) for end in ends):
            raise InputError(
                f"backbone.lora.targets holds {target}, whose rows train already "
                f"(backbone.trained_rows={rows}); leave it out"
            )
    # What peft puts in place of a head has no bias, unless it is a copy.
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if getattr(head, "bias", None) is not None and (tied or rows == "new_rows"):
        hint = "give another model" if tied else "use full"
        raise InputError(f"backbone.trained_rows={rows}: would drop the bias of {config.model}'s head; {hint}")
    if rows == "full":
        return {"modules_to_save": ends, "ensure_weight_tying": tied}
    return {"trainable_token_indices": dict.fromkeys(ends[:1] if tied else ends, vocabulary.sid_ids)}


def _ends(model: PreTrainedModel) -> list[str]:
    """Return the names of the embedding and of the head."""
    names = {id(module): name for name, module in model.named_modules()}
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[no-untyped-call]
    return [names[id(end)] for end in ends]


def _check_targets(targets: Sequence[str], model: PreTrainedModel) -> None:
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding | Conv1D)]
    known = sorted({layer.rsplit(".", 1)[-1] for layer in layers})
    for target in targets:
        if not any(_matches(layer, target) for layer in layers):
            raise InputError(
                f"backbone.lora.targets holds {target}, which names no layer{nearest(target, known)}; "
                f"choose from {', '.join(known)}"
            )


def _matches(layer: str, target: str) -> bool:
    """Whether peft takes a layer for a target: by its whole name or by its last parts."""
    return f".{layer}".endswith(f".{target}")
