"""What is measured on: a stage's real examples, and a backbone that has been trained on them for a little while.

An untrained backbone spreads its mass over all words, a trained one has put it on the codes; searches differ in cost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from peso_cli.backbones.build import Backbone, build_backbone
from peso_cli.backbones.loading import lora_arguments, merge_adapter
from peso_cli.config.schema import Config, ConfigBackbone
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import Examples, Split, examples
from peso_cli.data.open import open_dataset
from peso_cli.evaluation.ranking import pick_device, seeded_sample
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.methods.parts import AdapterStart
from peso_cli.training.layouts import Packed
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import shared
from peso_cli.training.steps import label_loss

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Case:
    """One configuration to be measured.

    Attributes:
        config: the settings.
        dataset: its data.
        stage: whose examples are used.
        backbone: the backbone before any training.
    """

    config: Config
    dataset: Dataset
    stage: int
    backbone: Backbone

    def sample(self, split: Split, most: int) -> Examples:
        """Return a seeded sample of the stage's examples."""
        found = examples(self.dataset.block(self.stage), split, self.config.prompt.window)
        return found.take(seeded_sample(len(found), most, self.config.seed))


def open_case(config: Config, stage: int) -> Case:
    """Open the data of a configuration and build its backbone.

    Raises:
        InputError: the stage, the data or the backbone isn't there.
    """
    dataset = open_dataset(config.dataset)
    dataset.block(stage)
    backbone = build_backbone(config.backbone, config.prompt, dataset.catalog, config.seed)
    backbone.model.to(pick_device(config.device))  # type: ignore[arg-type]
    return Case(config, dataset, stage, backbone)


def adapted(case: Case) -> nn.Module:
    """Return the backbone with a fresh LoRA, as a stage begins with it, on the device and without dropout."""
    backbone = case.backbone
    torch.manual_seed(case.config.seed)
    arguments = lora_arguments(case.config.backbone, backbone.model, backbone.vocabulary)
    model = Evolving().begin(AdapterStart(backbone.model, arguments)).to(pick_device(case.config.device))
    return model.eval()


def trained_for_a_while(case: Case, steps: int, tick: Tick) -> PreTrainedModel:
    """Return the backbone after a few steps of stage 1's kind of training, ready to decode with."""
    whole = isinstance(case.config.backbone, ConfigBackbone)
    if not steps:
        return case.backbone.model
    if whole:
        _train(FullWeights().begin(AdapterStart(case.backbone.model, {})), case, steps, tick)
        return case.backbone.model.eval()  # type: ignore[no-untyped-call, no-any-return]
    model = adapted(case)
    _train(model, case, steps, tick)
    with tempfile.TemporaryDirectory() as folder:
        Evolving().save(model, Path(folder))
        fresh = build_backbone(case.config.backbone, case.config.prompt, case.dataset.catalog, case.config.seed)
        merged = merge_adapter(fresh.model, Path(folder) / "adapter")
    return merged.to(pick_device(case.config.device)).eval()  # type: ignore[arg-type, no-any-return]


def _train(model: nn.Module, case: Case, steps: int, tick: Tick) -> None:
    trainer, window = case.config.trainer, case.config.prompt.window
    found = shared(examples(case.dataset.block(1), "train", window))
    packer = Packer((found,), Packed(case.backbone.prompt), trainer.batch_tokens)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=trainer.learning_rate)
    plan = packer.plan((case.config.seed, 0))
    for step in range(steps):
        batch = packer.batch(plan[step % len(plan)])
        loss = label_loss(model, batch, trainer.temperature) / len(batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, trainer.clip_norm)
        optimiser.param_groups[0]["lr"] = trainer.learning_rate * (1 - step / steps)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        tick(step + 1, steps, f"loss {float(loss.detach()):.2f}")


def perturb(model: nn.Module, size: float, seed: int) -> None:
    """Move every trainable parameter by normal noise, so that no gradient is zero for the reason of a fresh start."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                step = torch.randn(parameter.shape, generator=noise) * size
                parameter.add_(step.to(parameter.device, parameter.dtype))
