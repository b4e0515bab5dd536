"""A LoRA adapter that reads only what past inputs have nothing of, beside the frozen ones of earlier stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, AdapterStart, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peso_cli.methods.parts import Factors
    from peso_cli.methods.subspaces import Split

Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]


@dataclass(frozen=True, config=STRICT)
class InfLoRA:
    """W0 + s (sum over past stages of B_i A_i + B A): InfLoRA (arXiv 2404.00228), its branches merged as they are.

    s is the LoRA's scaling. A is designed before the stage and stays: its rows are orthogonal to the past inputs of
    their module and take up most of what this stage's inputs have besides. Only B trains. What is past is kept as in
    DualGPM, as a basis for each module of the subspace of past inputs or of its complement.

    Both the past inputs and this stage's are taken with the model as the stage before left it, which is how that stage
    ended and how this one begins.

    Attributes:
        past: which earlier stages' own pairs are summed: `all`, or the `latest` one. Inputs of all are avoided.
        inherit: whether B starts as a copy of the latest stage's own, or from zero. This is our reading of the variant,
            as A is always designed: a stage then begins with B A added, which past inputs see little of.
        threshold: share of the past inputs' energy that the kept subspaces hold at least; what they leave out of the
            past may be overwritten. 0 avoids nothing, 1 all directions in which there was anything. The paper lets it
            rise from stage to stage; here it is the same in all.
    """

    past: Literal["all", "latest"]
    inherit: bool
    threshold: Share
    name: Literal["inf_lora"] = "inf_lora"
    trains: ClassVar[bool] = True

    def begin(self, start: AdapterStart) -> nn.Module:
        """Start a pair upon the past ones, A designed from the data. Vocabulary rows go on as they are.

        Raises:
            InputError: the adapter enters an embedding.
        """
        from peso_cli.methods.lora import lora_factors, own_factors
        from peso_cli.methods.stacking import begin_upon, inherit, summed
        from peso_cli.methods.subspaces import remember

        past = summed(start, self.past)
        model = begin_upon(start, past)
        if self.past == "latest" and len(start.past) > 1:
            # The stage before had this pair below its own: until A is designed, the model is what that stage left.
            inherit(model, own_factors(start.past[-2]))
        kept, designed = self._designed(start, model)
        latest = past[-1] if past and self.inherit else {}
        _set_pairs(lora_factors(model), designed, latest)
        remember(model, kept)
        return model

    def _designed(self, start: AdapterStart, model: nn.Module) -> tuple[dict[str, Split], dict[str, Tensor]]:
        """Return each module's past inputs, those of the stage that has ended included, and its (rank, in) A."""
        from peso_cli.methods.lora import lora_factors
        from peso_cli.methods.moments import second_moments
        from peso_cli.methods.subspaces import design, keep, nothing_kept, of_state

        assert start.data is not None
        factors, device = lora_factors(model), start.model.device
        kept = {name: nothing_kept(a.shape[1], device) for name, (a, _) in factors.items()}
        if start.past:
            kept |= of_state(start.past[-1].read_state("adapter"), device)
        if start.stage > 1:
            ended = second_moments(model, factors, start.data.batches(start.stage - 1))
            kept = {name: keep(split, ended[name], self.threshold) for name, split in kept.items()}
        begins = second_moments(model, factors, start.data.batches(start.stage))
        return kept, {name: design(kept[name], begins[name], len(a)) for name, (a, _) in factors.items()}

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write all pairs as one adapter in PEFT format."""
        from peso_cli.methods.stacking import save_stacked

        save_stacked(model, folder)

    def state(self, model: nn.Module) -> State:
        """Return the current pair, where the adapter holds it only together with past ones, and the past's bases."""
        from peso_cli.methods.stacking import own_state
        from peso_cli.methods.subspaces import remembered

        return {**own_state(model), **remembered(model)}


def _set_pairs(factors: Factors, designed: dict[str, Tensor], latest: Factors) -> None:
    """Fix live A's at designed ones, and let B's begin as those of a stage; from zero where there is none."""
    import torch

    with torch.no_grad():
        for name, (a, b) in factors.items():
            a.copy_(designed[name]).requires_grad_(False)
            if latest:
                b.copy_(latest[name][1])
            else:
                b.zero_()
