"""The search that a sweep's words choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peso_cli.errors import InputError
from peso_cli.sweeps.engine import choose_part
from peso_cli.sweeps.searches.none import NoSearch
from peso_cli.sweeps.searches.optuna import Optuna

_NEEDED = ("make_sampler", "make_pruner")


def choose_search(words: Sequence[str], config_dir: Path | None = None) -> Optuna | None:
    """Make the search that `search=` and `search.*` describe; None: the plain grid.

    Raises:
        InputError: there is no such search, a setting of it is wrong, settings contradict each other, or its package
            isn't installed.
    """
    chosen: NoSearch | Optuna = choose_part("search", words, (), config_dir)
    if isinstance(chosen, NoSearch):
        return None
    search: Optuna = choose_part("search", words, _NEEDED, config_dir)
    _check(search)
    return search


def _check(search: Optuna) -> None:
    if len(set(search.figures)) < len(search.objectives):
        raise InputError(f"search.objectives=[{','.join(search.objectives)}]: an objective is there twice")
    if search.prune and len(search.objectives) > 1:
        raise InputError(
            "search.prune=true: a trial with several objectives can't be ended early; "
            "give one objective, or search.prune=false"
        )
    try:
        import optuna
    except ImportError:
        raise InputError(
            f"search={search.name}: needs the package optuna; install it: pip install 'peso[optuna]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
