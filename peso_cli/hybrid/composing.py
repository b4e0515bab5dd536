"""The configurations of a hybrid's parts: composed by themselves, with the data and all else that both share."""

from __future__ import annotations

from collections.abc import Sequence

from peso_cli.config.compose import Composed, compose_plain, validate
from peso_cli.errors import InputError
from peso_cli.hybrid.settings import GENERATIVE, PARTS, Hybrid, PartOfHybrid
from peso_cli.two_tower.settings import TwoTower

_SHARED = (
    "stage",
    "seed",
    "dataset",
    "prompt",
    "decoding",
    "evaluation",
    "tracker",
    "cleaning",
    "split",
    "embedding",
    "quantizer",
    "tokenizer",
    "output",
    "device",
)
"""What a part has from the hybrid."""

_OWN = ("backbone", "trainer", "adapter", "regularizer", "memory")
"""What the settings of a part may be of."""

_KINDS = {"generative": "a language model, such as tiny", "two_tower": "a two-tower model, such as lightgcn"}


def composed_parts(whole: Composed) -> dict[str, Composed]:
    """Return the configurations of a hybrid's parts by their roles; none of what is no hybrid.

    Raises:
        InputError: a part's backbone, method or a setting is wrong, or the hybrid is given what only parts have.
    """
    backbone = whole.config.backbone
    if not isinstance(backbone, Hybrid):
        return {}
    for word in whole.overrides:
        if _head(word) in ("trainer", "memory"):
            raise InputError(
                f"{word}: a hybrid trains nothing itself; give it to a part: backbone.generative.settings=['{word}']"
            )
    return {role: _composed(role, getattr(backbone, role), whole) for role in PARTS}


def _composed(role: str, part: PartOfHybrid, whole: Composed) -> Composed:
    for word in part.settings:
        if _head(word) not in _OWN or word.startswith("backbone="):
            raise InputError(
                f"backbone.{role}.settings: {word} is no setting of a part alone, which are of {', '.join(_OWN)}; "
                "give it to the hybrid itself"
            )
    own = [f"backbone={part.backbone}", f"method={part.method}", *part.settings]
    try:
        return _of_kind(role, _with_shared(own, whole))
    except InputError as error:
        raise InputError(f"backbone.{role}: {error}") from None


def _with_shared(own: Sequence[str], whole: Composed) -> Composed:
    raw = compose_plain("config", own, whole.config_dir)
    plain = {key: whole.plain[key] if key in _SHARED else value for key, value in raw.plain.items()}
    choices = {**raw.choices, **{group: whole.choices[group] for group in _SHARED if group in whole.choices}}
    words = [word for word in whole.overrides if _head(word) in _SHARED]
    return Composed(validate(plain), plain, choices, (*words, *own), whole.config_dir, {})


def _of_kind(role: str, part: Composed) -> Composed:
    backbone = part.config.backbone
    towers = isinstance(backbone, TwoTower)
    if isinstance(backbone, Hybrid) or towers == (role == GENERATIVE):
        raise InputError(f"backbone={backbone.name} is none of this part, which is {_KINDS[role]}")
    return part


def _head(word: str) -> str:
    return word.partition("=")[0].partition(".")[0]
