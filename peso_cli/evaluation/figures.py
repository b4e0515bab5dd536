"""metrics.json: which figures an artifact has, and working out those that it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peso_cli import processes
from peso_cli.artifacts import Artifact
from peso_cli.config.fingerprint import digest
from peso_cli.config.schema import Config
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import Examples, Split, last_known
from peso_cli.data.raw import RawDataset
from peso_cli.data.synthetic import SyntheticDataset
from peso_cli.evaluation.protocol import Scored, block_before, user_examples, write_predictions
from peso_cli.files import write_json
from peso_cli.hybrid.settings import PARTS, TWO_TOWER, Hybrid
from peso_cli.learners import AnyRanker, learner_of
from peso_cli.tracking.record import NoRecord, Record
from peso_cli.two_tower.settings import TwoTower

if TYPE_CHECKING:
    from peso_cli.evaluation.ranking import Ranking
    from peso_cli.stages import Display, Run
    from peso_cli.training.loop import Progress

Metrics = dict[str, Any]


def protocol_of(config: Config) -> dict[str, Any]:
    """Return what must agree for two figures to be comparable."""
    decoding, backbone = config.decoding, config.backbone
    search = {"constraint": decoding.constraint, "beams": decoding.beams, "normalise": decoding.normalise}
    if isinstance(backbone, Hybrid):
        search["seen"] = config.parts[TWO_TOWER].config.backbone.seen
    return {
        **({"seen": backbone.seen} if isinstance(backbone, TwoTower) else search),
        "top_k": decoding.top_k,
        "window": config.prompt.window,
        **({"catalog": "visible"} if _hides(config) else {}),
    }


def _hides(config: Config) -> bool:
    """Tell whether items that aren't visible yet are kept out of the recommendations."""
    return not isinstance(config.dataset, SyntheticDataset | RawDataset) and config.dataset.catalog == "visible"


def score_own_stage(
    run: Run, stage: int, record: Record | NoRecord, progress: Progress | None, seconds: float, display: Display
) -> None:
    """Score a stage that has just been trained on its own test users; write metrics.json and predictions.parquet."""
    from peso_cli.evaluation.ranking import pick_device
    from peso_cli.hybrid.choosing import FILE
    from peso_cli.training.memory import peak_bytes

    peak = peak_bytes(pick_device(run.config.device))
    artifact, begun = run.artifact(stage), time.monotonic()
    ranker = learner_of(run.config).open_ranker(run.config, run.dataset, run.lineage(stage))
    (scored,) = score(ranker, run.config, run.dataset, [stage], "test", display.bar(f"stage {stage}: scoring"))
    if not processes.first():
        return
    write_predictions(artifact.folder / "predictions.parquet", scored)
    metrics = _empty(stage, run.config)
    _add(metrics, scored)
    metrics["training"] = _training(progress)
    if run.made_of:
        metrics["fusion"] = artifact.document(FILE)
    metrics["stored_bytes"] = artifact.stored_bytes
    metrics["seconds"] = {"train": round(seconds, 3), "evaluate": round(time.monotonic() - begun, 3)}
    metrics["peak_bytes"] = peak
    write_json(artifact.folder / "metrics.json", metrics)
    record.result(stage, flat_figures(metrics["evaluated"][str(stage)]["test"]))
    record.samples(*sample_table(scored, run.config.tracker.samples))


def evaluate(run: Run, stage: int, on: Sequence[int], split: Split, display: Display) -> Metrics:
    """Return the figures of a finished stage on the users of several stages.

    Those already known, and of the same data, aren't scored again. Figures of the protocol with which the stage was
    trained go to its metrics.json, others to a file of their own.

    Raises:
        InputError: the stage isn't trained.
        RunError: a file of it is damaged.
    """
    artifact = run.require(stage)[-1]
    known = _metrics(run, stage)
    if processes.agreed(all(_known(known, run.dataset, s, split) for s in on)):
        # Read again, lest another process of this run has read it before somebody added to it.
        return _metrics(run, stage)
    with artifact.held(lambda: display.say(f"stage {stage}: waiting for another process that scores it")):
        return _score_missing(run, stage, on, split, display)


def _score_missing(run: Run, stage: int, on: Sequence[int], split: Split, display: Display) -> Metrics:
    """Add figures to a stage's file that nobody else writes meanwhile."""
    metrics = _metrics(run, stage)
    missing = processes.agreed([s for s in dict.fromkeys(on) if not _known(metrics, run.dataset, s, split)])
    if missing:
        ranker = learner_of(run.config).open_ranker(run.config, run.dataset, run.lineage(stage))
        names = ", ".join(map(str, missing))
        for scored in score(ranker, run.config, run.dataset, missing, split, display.bar(f"scoring on stage {names}")):
            _add(metrics, scored)
        if processes.first():
            write_json(metrics_path(run.artifact(stage), protocol_of(run.config)), metrics)
    processes.wait()
    return metrics


def _metrics(run: Run, stage: int) -> Metrics:
    """Return what a finished stage has of the figures of the run's protocol."""
    artifact = run.artifact(stage)
    path = metrics_path(artifact, protocol_of(run.config))
    return artifact.document(path.relative_to(artifact.folder)) if path.exists() else _empty(stage, run.config)


def _known(metrics: Metrics, dataset: Dataset, stage: int, split: Split) -> bool:
    same = metrics["data"].get(str(stage)) == data_digest(dataset, stage)
    return same and split in metrics["evaluated"].get(str(stage), {})


def score(
    ranker: AnyRanker,
    config: Config,
    dataset: Dataset,
    stages: Sequence[int],
    split: Split,
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> list[Scored]:
    """Rank for every user of some stages and one split.

    Stages with the same catalog are ranked together, where equal histories are ranked for once.

    Raises:
        InputError: a stage has no such user.
    """
    chosen = {stage: user_examples(dataset, stage, split, config.prompt.window) for stage in stages}
    known = {stage: dataset.catalog_at(last_known(stage, split)) for stage in stages}
    found: dict[int, Scored] = {}
    for catalog in {id(catalog): catalog for catalog in known.values()}.values():
        group = {stage: users for stage, users in chosen.items() if known[stage] is catalog}
        found |= _score_together(ranker.within(catalog), config.decoding.top_k, dataset, group, split, tick)
    return [found[stage] for stage in stages]


def _score_together(
    ranker: AnyRanker,
    k: int,
    dataset: Dataset,
    chosen: Mapping[int, Examples],
    split: Split,
    tick: Callable[[int, int, str], None],
) -> dict[int, Scored]:
    histories = [history for users in chosen.values() for history in users.histories()]
    names = [users.block.users[row] for users in chosen.values() for row in users.user]
    ranking = ranker.rank(histories, k, lambda done, total: tick(done, total, "users"), names)
    places = np.split(np.arange(len(names)), np.cumsum([len(users) for users in chosen.values()])[:-1])
    found = zip(chosen.items(), places, strict=True)
    return {stage: _scored(dataset, stage, split, users, ranking.take(own)) for (stage, users), own in found}


def _scored(dataset: Dataset, stage: int, split: Split, users: Examples, ranking: Ranking) -> Scored:
    parts = {role: _scored(dataset, stage, split, users, part) for role, part in ranking.parts.items()}
    return Scored(dataset, stage, split, users, ranking.rows, ranking.scores, ranking.items, parts)


def data_digest(dataset: Dataset, stage: int) -> str:
    """Return the digest of all data that a stage's figures depend on.

    These are its block, for the groups the one before, and the items that were there to recommend, where that changes.
    What the split `next` takes from the stage before, items and popularity, is in the fingerprint of the model's stage.
    """
    before, visible = block_before(dataset, stage), dataset.visible is not None
    catalog = [dataset.catalog_at(stage).digest] if visible else []
    return digest([dataset.block(stage).digest, before.digest if before else None, *catalog])


def metrics_path(artifact: Artifact, protocol: Mapping[str, Any]) -> Path:
    """Return the file that holds an artifact's figures of a protocol."""
    if artifact.metrics()["protocol"] == protocol:
        return artifact.folder / "metrics.json"
    return artifact.folder / "evaluations" / f"{digest(protocol)[:8]}.json"


def _empty(stage: int, config: Config) -> Metrics:
    return {"stage": stage, "protocol": protocol_of(config), "data": {}, "evaluated": {}, "groups": {}}


def _add(metrics: Metrics, scored: Scored) -> None:
    """Add a stage's figures, in place of all that were taken on other data of that stage."""
    stage, figures, data = str(scored.stage), scored.summary(), data_digest(scored.dataset, scored.stage)
    if metrics["data"].get(stage) != data:
        metrics["data"][stage], metrics["evaluated"][stage], metrics["groups"][stage] = data, {}, {}
    metrics["groups"][stage][scored.split] = figures.pop("groups")
    metrics["evaluated"][stage][scored.split] = figures


def _training(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "epochs": progress.epoch,
        "steps": progress.step,
        "best_epoch": progress.best_epoch,
        "best_validation_loss": progress.best_loss,
        "trained_parameters": progress.trained_parameters,
        "history": progress.history,
    }


def flat_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return a summary's figures by dotted name: `recall@5`, `item.recall@5`, `popularity.recall@5`, ..."""
    flat = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    for kind in ("item", "popularity", "ceiling", *PARTS, "oracle"):
        flat |= {f"{kind}.{n}": v for n, v in summary.get(kind, {}).items() if isinstance(v, int | float)}
    return flat


def sample_table(scored: Scored, most: int) -> tuple[list[str], list[list[object]]]:
    """Return the columns and rows of a table that shows some users' latest items and recommendations."""
    catalog, chosen = scored.catalog, scored.examples

    def names(items: Sequence[int]) -> str:
        return " | ".join(catalog.titles.get(catalog.items[i], catalog.items[i]) for i in items)

    rows: list[list[object]] = []
    for i in range(min(most, len(chosen))):
        best = [int(item) for item in scored.listed[i] if item >= 0][:5]
        latest = [int(item) for item in chosen.history(i)[-5:]]
        rows.append(
            [
                chosen.block.users[chosen.user[i]],
                names(latest),
                names([int(chosen.target_items[i])]),
                names(best),
                int(scored.ranks[i]),
            ]
        )
    return ["user", "latest items", "target", "recommended", "rank (0: missed)"], rows
