"""A pretrained language model that gives one vector for a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.ranking import pick_device
from peso_cli.semantic_ids.parts import Floats

if TYPE_CHECKING:
    from peso_cli.semantic_ids.embeddings.encoder import Encoder

Tokens = Sequence[int]


@dataclass(frozen=True, eq=False)
class TextModel:
    """A loaded model.

    Attributes:
        encoder: its settings.
        model: gives (batch, tokens, width) hidden states.
        tokenizer: the model's own.
    """

    encoder: Encoder
    model: Any
    tokenizer: Any

    def vectors(self, texts: Sequence[str], done: Callable[[int], None]) -> Floats:
        """Return the (texts, width) vectors of texts; a text without any token gets zeros.

        Args:
            texts: at least one.
            done: told after each batch how many texts are embedded.

        Raises:
            RunError: the model gives no numbers.
        """
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.encoder.max_tokens)["input_ids"]
        found = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        count = 0
        for rows in batches([len(row) for row in tokens], self.encoder.batch_tokens):
            found[rows] = self._embed([tokens[row] for row in rows]).cpu().numpy()
            if not np.isfinite(found[rows]).all():
                raise RunError(f"embedding.model={self.encoder.model}: gives no numbers; are its weights whole?")
            done(count := count + len(rows))
        return found

    @torch.inference_mode()
    def _embed(self, batch: Sequence[Tokens]) -> Tensor:
        ids, mask = padded(batch, self.tokenizer.pad_token_id or 0)
        device = next(self.model.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = mean(states, mask) if self.encoder.pooling == "mean" else last(states, mask)
        return nn.functional.normalize(pooled, dim=-1) if self.encoder.normalise else pooled


def load_text_model(encoder: Encoder, folder: str) -> TextModel:
    """Load a model and its tokenizer from a folder: safetensors alone, and no code.

    Raises:
        InputError: they can't be loaded, don't fit together, or read fewer tokens than `max_tokens`.
    """
    tokenizer = _load("tokenizer", encoder, AutoTokenizer, folder)
    model, report = _load(
        "model", encoder, AutoModel, folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    # Some encoders are stored without the head for whole texts, which isn't used here.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(f"embedding.model={encoder.model}: its files hold no {missing[0]}; give a whole model")
    if not hasattr(model.config, "hidden_size"):
        raise InputError(
            f"embedding.model={encoder.model}: is no model of texts alone; give an encoder or a causal model"
        )
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    most = min(getattr(model.config, "max_position_embeddings", None) or encoder.max_tokens, tokenizer.model_max_length)
    if encoder.max_tokens > most:
        raise InputError(f"embedding.max_tokens={encoder.max_tokens}: {encoder.model} reads {most} at most")
    return TextModel(encoder, model.eval().to(pick_device(encoder.device)), tokenizer)


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield rows whose padded lengths hold at most `batch_tokens`, longest first; a longer row comes alone.

    Rows of length 0 come in no batch.
    """
    batch: list[int] = []
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(batch: Sequence[Tokens], pad: int) -> tuple[Tensor, Tensor]:
    """Return (batch, longest) token ids, padded on the right, and the mask of what is no padding."""
    ids = torch.full((len(batch), max(map(len, batch))), pad)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the (batch, width) mean of (batch, tokens, width) states over the tokens that the mask keeps."""
    kept = mask[..., None].to(states.dtype)
    return (states * kept).sum(dim=1) / kept.sum(dim=1)


def last(states: Tensor, mask: Tensor) -> Tensor:
    """Return the (batch, width) states of the last tokens that the mask keeps."""
    return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]


def _load(part: str, encoder: Encoder, auto: Any, folder: str, **how: Any) -> Any:
    try:
        return auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **how)
    except Exception as error:  # the loaders raise whatever a broken file makes them stumble over
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(" .:")
        raise InputError(f"embedding.model={encoder.model}: the {part} can't be loaded ({reason})") from None
