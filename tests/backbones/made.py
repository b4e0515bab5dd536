"""What operations make: for tests of what a computation may never hold."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Made(TorchDispatchMode):
    """Counts the numbers of every tensor that operations make, views aside."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        known = {
            x.untyped_storage().data_ptr() for x in tree_leaves((arguments, options)) if isinstance(x, torch.Tensor)
        }
        result = function(*arguments, **(options or {}))
        new = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.sizes += [x.numel() for x in new if x.untyped_storage().data_ptr() not in known]
        return result
