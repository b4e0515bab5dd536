"""Loading a backbone with what the stages of a lineage learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from peso_cli.artifacts import Artifact
from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.config.schema import ConfigBackbone, PretrainedBackbone


def load_weights(model: PreTrainedModel, lineage: Sequence[Artifact]) -> Path | None:
    """Load the newest whole weights of a lineage into the backbone.

    Args:
        model: the backbone as it was before stage 1; changed in place.
        lineage: artifacts, stage 1 first.

    Returns:
        The folder of the newest adapter that is not older than those weights; None if there is none.
    """
    from safetensors.torch import load_model

    whole = [index for index, artifact in enumerate(lineage) if artifact.weights]
    newest = whole[-1] if whole else 0
    if whole:
        load_model(model, lineage[newest].folder / "model" / "model.safetensors")
    adapters = [artifact.adapter for artifact in lineage[newest:] if artifact.adapter]
    return adapters[-1] if adapters else None


def load_for_inference(model: PreTrainedModel, lineage: Sequence[Artifact]) -> PreTrainedModel:
    """Return the backbone with everything a lineage learnt folded into its weights."""
    adapter = load_weights(model, lineage)
    if adapter is None:
        return model
    from peft import PeftModel

    merged: PreTrainedModel = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return merged


def lora_arguments(
    config: ConfigBackbone | PretrainedBackbone, model: PreTrainedModel, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig for a backbone: shape, targets and which vocabulary rows train."""
    lora = config.lora
    shape: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    shape["target_modules"] = list(lora.targets)
    if isinstance(config, ConfigBackbone):
        return shape
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[no-untyped-call]
    tied = inputs.weight is outputs.weight
    names = [name for name, module in model.named_modules() if module is inputs or module is outputs]
    ends = [name.rsplit(".", 1)[-1] for name in names]
    if config.trained_rows == "full":
        return {**shape, "modules_to_save": ends, "ensure_weight_tying": tied}
    trained = ends[:1] if tied else ends
    return {**shape, "trainable_token_indices": dict.fromkeys(trained, vocabulary.sid_ids)}
