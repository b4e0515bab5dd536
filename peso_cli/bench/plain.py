"""The plain Hugging Face way: what research code does, and what the engines are measured against.

Decoding is `generate` with beams and a function that allows what the trie allows. Training pads one sequence per
example and takes logits at every position, or, better, at the labels only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedModel

from peso_cli.backbones.prompts import Prompt
from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.training.layouts import Batch, Padded
from peso_cli.training.sequences import Sequences

History = NDArray[np.int32]
Allowed = dict[tuple[int, ...], list[int]]


@dataclass(frozen=True, eq=False)
class PlainSearch:
    """Constrained beam search by `generate`.

    Attributes:
        model: the backbone.
        vocabulary: its token ids.
        prompt: the rendered prompt.
        beams: width of the beam, and how many sequences are returned.
        allowed: which tokens may follow each beginning of an answer.
    """

    model: PreTrainedModel
    vocabulary: Vocabulary
    prompt: Prompt
    beams: int
    allowed: Allowed

    @torch.inference_mode()
    def run(self, histories: Sequence[History], batch: int, scores: bool = False) -> tuple[NDArray[np.int64], Any]:
        """Search for users in batches of neighbours in length, padded on the left.

        Returns:
            (n, beams, levels) token ids, best first, and the (n, beams) scores where they are asked for.
        """
        order = np.argsort([len(history) for history in histories], kind="stable")
        levels = self.prompt.answers.shape[1]
        tokens = np.zeros((len(histories), self.beams, levels), dtype=np.int64)
        found_scores = np.zeros((len(histories), self.beams), dtype=np.float32)
        use_plain_attention(self.model)
        for start in range(0, len(order), batch):
            members = order[start : start + batch]
            found, begin = self._generate([self.prompt.tokens(histories[i]) for i in members], scores)
            codes = found.sequences[:, begin : begin + levels]
            tokens[members] = codes.view(len(members), self.beams, levels).cpu().numpy()
            if scores:
                found_scores[members] = found.sequences_scores.view(len(members), -1).cpu().numpy()
        return tokens, found_scores if scores else None

    def _generate(self, prompts: list[NDArray[np.int64]], scores: bool) -> tuple[Any, int]:
        tokens, real = _padded(prompts, self.vocabulary.pad, self.model)
        length = tokens.shape[1]
        generate: Any = self.model.generate
        found = generate(
            input_ids=tokens,
            attention_mask=real,
            generation_config=self._settings(scores),
            prefix_allowed_tokens_fn=lambda row, so_far: self.allowed.get(
                tuple(so_far[length:].tolist()), [self.vocabulary.end]
            ),
        )
        return found, length

    def _settings(self, scores: bool) -> GenerationConfig:
        return GenerationConfig(  # type: ignore[no-untyped-call]
            num_beams=self.beams,
            num_return_sequences=self.beams,
            max_new_tokens=self.prompt.answers.shape[1] + 1,
            do_sample=False,
            early_stopping=True,
            output_scores=scores,
            return_dict_in_generate=True,
            bos_token_id=self.vocabulary.begin,
            eos_token_id=self.vocabulary.end,
            pad_token_id=self.vocabulary.pad,
        )


def allowed_tokens(prompt: Prompt) -> Allowed:
    """Return which tokens may follow each beginning of an answer."""
    following: dict[tuple[int, ...], set[int]] = {}
    for answer in np.unique(prompt.answers, axis=0).tolist():
        for level, token in enumerate(answer):
            following.setdefault(tuple(answer[:level]), set()).add(token)
    return {before: sorted(tokens) for before, tokens in following.items()}


def use_plain_attention(model: nn.Module) -> None:
    """Take off what this package puts in the place of a backbone's attention."""
    model.get_decoder().set_attn_implementation("sdpa")  # type: ignore[operator]


@torch.inference_mode()
def bare_prefill(model: PreTrainedModel, prompt: Prompt, histories: Sequence[History], batch: int) -> None:
    """Read the same prompts without any search: one forward over padded neighbours in length, logits at the end."""
    order = np.argsort([len(history) for history in histories], kind="stable")
    use_plain_attention(model)
    for start in range(0, len(order), batch):
        tokens, real = _padded([prompt.tokens(histories[i]) for i in order[start : start + batch]], prompt.pad, model)
        model(input_ids=tokens, attention_mask=real, logits_to_keep=1, use_cache=True)


def _padded(prompts: Sequence[NDArray[np.int64]], pad: int, model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Return (rows, length) tokens padded on the left, and which of them are real."""
    length = max(map(len, prompts))
    padded = np.full((len(prompts), length), pad, dtype=np.int64)
    real = np.zeros_like(padded)
    for row, prompt in enumerate(prompts):
        padded[row, length - len(prompt) :], real[row, length - len(prompt) :] = prompt, 1
    return torch.from_numpy(padded).to(model.device), torch.from_numpy(real).to(model.device)


Loss = Callable[[nn.Module, Batch, float], Tensor]


def full_logits(model: nn.Module, batch: Batch, temperature: float) -> Tensor:
    """Return the summed cross-entropy of a padded batch, with logits at every position."""
    tokens, at, wanted = _on_device(model, batch)
    logits = model(input_ids=tokens, use_cache=False).logits.float() / temperature
    labels = torch.full_like(tokens.flatten(), -100).index_copy(0, at, wanted)
    return functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")


def label_logits(model: nn.Module, batch: Batch, temperature: float) -> Tensor:
    """Return the same with the head at the labels only."""
    tokens, at, wanted = _on_device(model, batch)
    hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state  # type: ignore[operator]
    logits = model.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, at))  # type: ignore[operator]
    return functional.cross_entropy(logits.float() / temperature, wanted, reduction="sum")


def _on_device(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    device = next(model.parameters()).device
    tokens, at, labels = (torch.from_numpy(x).to(device) for x in (batch.tokens, batch.at, batch.labels))
    return tokens, at, labels


def padded_batches(examples: Sequences, prompt: Prompt, size: int) -> Iterator[Batch]:
    """Yield batches of `size` examples, neighbours in length, a padded row each."""
    order, layout = np.argsort(examples.items, kind="stable").tolist(), Padded(prompt)
    for start in range(0, len(order), size):
        yield layout.batch([(examples, row) for row in order[start : start + size]])
