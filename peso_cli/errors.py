"""The two ways a command can end badly: the user's input was wrong, or the work failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from peso_cli.characters import one_line


class InputError(Exception):
    """The user's input is wrong. The message is one line: what, where, how to mend it. Exit code 2."""

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class UnknownKeyError(InputError):
    """A setting is given that the configuration doesn't have.

    Attributes:
        key: the dotted key.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class RunError(Exception):
    """The work itself failed (not through the user's input). The message is one line. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class DivergedError(RunError):
    """Training met a number that is not finite; no step was taken with it.

    Attributes:
        known: what is known of it, by name: `step`, `what`, and the numbers; those that aren't finite as texts.
    """

    def __init__(self, message: str, known: Mapping[str, float | str]) -> None:
        super().__init__(message)
        self.known = dict(known)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" (did you mean X?)"` for the closest known name, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.55)
    return f" (did you mean {close[0]}?)" if close else ""
