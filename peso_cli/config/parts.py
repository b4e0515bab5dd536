"""From the YAML of an adapter, a quantizer or another part to the part itself; `_target_` names its class."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from pydantic import TypeAdapter

from peso_cli.errors import InputError

PARTS = {
    "adapter": ("begin", "save", "state", "trains"),
    "regularizer": ("begin",),
    "memory": ("stages", "select"),
    "embedding": ("embed",),
    "quantizer": ("fit", "load"),
}
"""The groups whose choices are classes, with what a class of each must have."""

TARGET = "_target_"
"""The key that names a class, as Hydra spells it."""


def make_part(group: str, settings: object, needed: Sequence[str]) -> Any:
    """Make the part that a group's settings describe.

    Args:
        group: a group of `conf/` whose choices name classes.
        settings: what its YAML holds: `_target_`, a class as `module.Class`, and the fields of that class.
        needed: what the class must have, such as PARTS says.

    Raises:
        InputError: the class is not there, or is none that can be this part.
        pydantic.ValidationError: a field is unknown, missing or out of bounds; its location is relative to the group.
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get(TARGET), str):
        raise InputError(f"{group}.{TARGET} is missing: it names the class of the {group}, such as my_module.MyClass")
    found = _class(group, settings[TARGET], needed)
    return TypeAdapter(found).validate_python({key: value for key, value in settings.items() if key != TARGET})


def _class(group: str, target: str, needed: Sequence[str]) -> type[Any]:
    module, _, name = target.rpartition(".")
    what = f"{group}.{TARGET}={target}"
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # a module of the user's own may fail in any way
        raise InputError(f"{what}: {module or target} can't be imported ({type(error).__name__}: {error})") from None
    if not isinstance(found, type):
        raise InputError(f"{what}: there is no class {name} in {module}")
    lacks = [each for each in needed if not hasattr(found, each)]
    if not is_dataclass(found) or lacks:
        lack = f"has no {' and no '.join(lacks)}" if lacks else "is no dataclass"
        raise InputError(f"{what}: {name} {lack}, so that it can't be a part of kind {group}")
    return found
