"""`peso bench`: this package's engines beside the plain way, and what builds, quantizers and tracking cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.config.schema import Config
from peso_cli.errors import InputError
from peso_cli.stages import Display
from peso_cli.terminal import OUT, TerminalDisplay


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        users: test users whose lists are compared.
        timed: how many of them are timed in the plain way.
        examples: training examples.
        steps: training steps before decoding is measured.
        repeats: how often each way is timed.
        rows: interactions of the smaller one of two builds.
        items: embeddings that the quantizer is fitted to.
    """

    users: int
    timed: int
    examples: int
    steps: int
    repeats: int
    rows: int
    items: int


BENCHES = ("decode", "train", "regularizer", "growth", "data", "tokenize", "tracking")

_WIDTH = 384
"""Of the embeddings that quantizers are fitted to: that of a small text encoder."""


def bench(composed: Composed, names: Sequence[str], sizes: Sizes, as_json: bool) -> None:
    """Measure and print.

    Args:
        composed: the configuration.
        names: some of BENCHES.
        sizes: how much is measured.
        as_json: print a JSON document instead of tables.

    Raises:
        InputError: the settings or the data are wrong.
    """
    _check(composed.config)
    with TerminalDisplay() as display:
        documents = [_measure(name, composed, sizes, display) for name in names]
    if as_json:
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    from peso_cli.bench.report import tables

    for document in documents:
        for part in tables(document):
            OUT.print(part)


def _check(config: Config) -> None:
    if config.decoding.constraint != "trie":
        raise InputError(f"decoding.constraint={config.decoding.constraint}: bench compares searches within the trie")
    if not isinstance(config.stage, int):
        raise InputError(f"stage={config.stage}: bench takes one stage")


def _measure(name: str, composed: Composed, sizes: Sizes, display: Display) -> dict[str, Any]:
    from peso_cli.bench.building import bench_build
    from peso_cli.bench.growth import bench_growth
    from peso_cli.bench.quantizing import bench_quantizers
    from peso_cli.bench.tracking import bench_tracking

    config = composed.config
    display.say(f"bench {name}")
    match name:
        case "growth":
            return bench_growth(config, sizes.repeats, display)
        case "data":
            return bench_build(sizes.rows, display)
        case "tokenize":
            return bench_quantizers([config.quantizer], sizes.items, _WIDTH, config.seed, display)
        case "tracking":
            return bench_tracking(composed, sizes.repeats, display)
        case _:
            return _measure_engine(name, config, sizes, display)


def _measure_engine(name: str, config: Config, sizes: Sizes, display: Display) -> dict[str, Any]:
    """Measure one engine on a backbone of its own: each bench changes the weights."""
    from peso_cli.bench.cases import open_case
    from peso_cli.bench.decoding import bench_decoding
    from peso_cli.bench.penalty import bench_penalty
    from peso_cli.bench.training import bench_training

    assert isinstance(config.stage, int)
    case = open_case(config, config.stage)
    match name:
        case "decode":
            return bench_decoding(case, sizes.users, sizes.timed, sizes.repeats, sizes.steps, display)
        case "train":
            return bench_training(case, sizes.examples, sizes.repeats, display)
        case _:
            return bench_penalty(case, sizes.repeats, display)
