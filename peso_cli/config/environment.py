"""Keeping the environment out of configurations: it holds secrets, and configurations go into files, logs and pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

_RESOLVER = "oc.env"


@contextmanager
def unread_environment() -> Iterator[None]:
    """Have every interpolation that would read an environment variable fail while the block runs."""
    OmegaConf.register_new_resolver(_RESOLVER, _refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver(_RESOLVER, oc.env, replace=True)


def _refuse(*arguments: object) -> NoReturn:
    name = arguments[0] if arguments else "NAME"
    raise ValueError(
        f"${{{_RESOLVER}:{name}}} would read the environment into the configuration, which runs store and show; "
        "write the value itself, or let the shell do so"
    )
