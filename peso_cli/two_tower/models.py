"""The models: vectors of users and items, as they are, averaged over the graph, or read off a user's history."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peso_cli.errors import InputError
from peso_cli.two_tower.graph import propagated
from peso_cli.two_tower.parts import Towers
from peso_cli.two_tower.settings import SasRec, TwoTower

STRATEGY = "strategy."
"""What the names of weights begin with that a strategy trains for itself."""


class FactorModel(nn.Module):
    """A vector for each user and item; with a graph, averaged over its layers (LightGCN), else as it is (BPR).

    A user without a row is the mean of the history's items.
    """

    def __init__(self, users: int, items: int, width: int, std: float, graph: Tensor | None = None, layers: int = 0):
        super().__init__()
        self.users = nn.Parameter(torch.empty(users, width).normal_(std=std))
        self.items = nn.Parameter(torch.empty(items, width).normal_(std=std))
        self.strategy = nn.ModuleDict()
        self._graph, self._layers = graph, layers

    def towers(self) -> Towers:
        """Return the vectors that scores are products of."""
        if self._graph is None:
            return Towers(self.users, self.items)
        both = propagated(torch.cat([self.users, self.items]), self._graph, self._layers)
        return Towers(both[: len(self.users)], both[len(self.users) :])

    def queries(self, towers: Towers, users: Tensor, histories: Tensor) -> Tensor:
        """Return (n, width) vectors of (n,) rows of users, -1 for one without, and their (n, window) histories.

        Histories are rows of items, oldest first, filled up with -1 on the right.
        """
        assert towers.users is not None
        there = (histories >= 0).to(towers.items.dtype)
        read = (F.embedding(histories.clamp(min=0), towers.items) * there[..., None]).sum(dim=1)
        mean = read / there.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.where((users >= 0)[:, None], F.embedding(users.clamp(min=0), towers.users), mean)


class SequenceModel(nn.Module):
    """SASRec: causal self-attention over a start vector and the history's items; the last state is the user.

    A score is the product of that state with the vector of an item, the same that is read for it in histories.
    """

    users = None

    def __init__(self, items: int, window: int, settings: SasRec):
        super().__init__()
        width, std = settings.width, settings.initial_std
        if width % settings.heads:
            raise InputError(f"backbone.width={width}: must be a multiple of backbone.heads={settings.heads}")
        self.items = nn.Parameter(torch.empty(items, width).normal_(std=std))
        self.start = nn.Parameter(torch.empty(width).normal_(std=std))
        self.positions = nn.Parameter(torch.empty(window + 1, width).normal_(std=std))
        self.strategy = nn.ModuleDict()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(settings.dropout)
        layer = nn.TransformerEncoderLayer(
            width, settings.heads, settings.feed_forward, settings.dropout, F.gelu, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)

    def towers(self) -> Towers:
        """Return the vectors of items; users are what their histories are read as."""
        return Towers(None, self.items)

    def states(self, histories: Tensor) -> Tensor:
        """Return (n, length + 1, width) states of (n, length) histories: state i has read the first i items."""
        read = F.embedding(histories.clamp(min=0), self.items)
        inputs = torch.cat([self.start.expand(len(read), 1, -1), read], dim=1)
        inputs = self.dropout(self.norm(inputs + self.positions[: inputs.shape[1]]))
        mask = nn.Transformer.generate_square_subsequent_mask(inputs.shape[1], device=inputs.device)
        states: Tensor = self.encoder(inputs, mask=mask, is_causal=True)
        return states

    def queries(self, towers: Towers, users: Tensor, histories: Tensor) -> Tensor:
        """Return (n, width) states behind (n, window) histories, which are filled up with -1 on the right."""
        states, lengths = self.states(histories), (histories >= 0).sum(dim=1)
        return states[torch.arange(len(states), device=states.device), lengths]


Model = FactorModel | SequenceModel


def make_model(settings: TwoTower, users: int, items: int, window: int, graph: Tensor | None) -> Model:
    """Make a model of random vectors, drawn from torch's generator.

    Raises:
        InputError: settings don't fit together.
    """
    if isinstance(settings, SasRec):
        return SequenceModel(items, window, settings)
    layers = getattr(settings, "layers", 0)
    return FactorModel(users, items, settings.width, settings.initial_std, graph, layers)
