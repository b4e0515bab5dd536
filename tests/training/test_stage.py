import json

import numpy as np
import pytest
from commands.running import SMALL, peso, refused
from worlds import write_released

from peso_cli.config.compose import compose
from peso_cli.data.examples import examples
from peso_cli.stages import ensure, open_run
from peso_cli.training.stage import open_ranker, stage_seed


class Quiet:
    """A display that shows nothing."""

    def say(self, text):
        pass

    def bar(self, title):
        return lambda done, total, note: None


def trained_run(output, *overrides, stages=(1,)):
    run = open_run(compose([*SMALL, f"output={output}", *overrides]))
    ensure(run, stages, Quiet())
    return run


def log_of(run, stage):
    return [json.loads(line) for line in (run.artifact(stage).folder / "log.jsonl").read_text().splitlines()]


def steps_of(run, stage):
    return [line for line in log_of(run, stage) if "loss" in line]


def test_seeds_of_stages_and_runs_differ_and_stay():
    seeds = {stage_seed(seed, stage) for seed in range(20) for stage in range(1, 20)}
    assert len(seeds) == 20 * 19
    assert stage_seed(1, 2) == stage_seed(1, 2)


def test_all_layouts_begin_with_the_same_validation_loss(trained, tmp_path):
    packed = open_run(compose(trained.arguments()))
    single = trained_run(tmp_path, "trainer.packing=example")
    first, other = (log_of(run, 1)[0] for run in (single, packed))
    assert other == {**first, "validation_loss": pytest.approx(first["validation_loss"], rel=1e-6)}
    assert len(steps_of(single, 1)) > len(steps_of(packed, 1))


def test_later_stages_take_their_own_share_of_the_learning_rate(trained, copied):
    plain = open_run(compose(trained.arguments("method=single")))
    scaled = trained_run(copied.output, "method=single", "trainer.later_stage_scale=0.25", stages=(2,))
    assert scaled.artifact(1).folder.relative_to(copied.output) == plain.artifact(1).folder.relative_to(trained.output)
    rates = [[step["learning_rate"] for step in steps_of(run, 2)] for run in (plain, scaled)]
    assert rates[1] == pytest.approx([0.25 * rate for rate in rates[0]])


def test_later_stages_may_have_fewer_epochs_and_never_more(copied):
    for most, epochs in ((1, 1), (9, 2)):
        run = trained_run(copied.output, "method=single", f"trainer.later_epochs={most}", stages=(2,))
        assert [run.artifact(stage).metrics()["training"]["epochs"] for stage in (1, 2)] == [2, epochs]
    assert len(list(copied.output.glob("synthetic/tiny/base/*"))) == 1


def test_a_memory_of_everything_trains_on_everything(copied):
    run = trained_run(copied.output, "method=single", "memory=all", stages=(2,))
    assert run.artifact(2).lineage()["trained_on"] == [1, 2]
    assert set(run.artifact(2).lineage()["data"]["blocks"]) == {"1", "2"}
    current = open_run(compose(copied.arguments("method=single")))
    assert len(steps_of(run, 2)) > len(steps_of(run, 1)) > len(steps_of(current, 2))


def test_validation_may_look_at_a_sample(copied):
    run = trained_run(copied.output, "trainer.validation_users=3", stages=(1,))
    again = open_run(compose(copied.arguments()))
    first, whole = log_of(run, 1)[0], log_of(again, 1)[0]
    assert first["step"] == whole["step"] == 0
    assert first["validation_loss"] != whole["validation_loss"]


def test_full_weights_leave_a_whole_model_and_need_no_adapter(copied):
    run = trained_run(copied.output, "method=full", stages=(2, 3))
    assert run.artifact(2).adapter is None
    assert run.artifact(3).weights is not None
    histories = [examples(run.dataset.block(3), "test", 20).history(0)]
    second, third = (open_ranker(run.config, run.dataset, run.lineage(stage)).rank(histories, 10) for stage in (2, 3))
    assert not np.array_equal(second.scores, third.scores)


def test_no_epochs_score_the_stage_before(copied):
    run = trained_run(copied.output, "method=single", "trainer.epochs=0", stages=(2,))
    metrics = run.artifact(2).metrics()
    assert (metrics["training"]["epochs"], metrics["training"]["steps"]) == (0, 0)
    frozen = trained_run(copied.output, "method=pretrain", "trainer.epochs=0", stages=(2,))
    assert frozen.artifact(2).metrics()["evaluated"] == metrics["evaluated"]


INDEX = {f"i{n}": [f"<a_{n // 4}>", f"<b_{n % 4}>"] for n in range(12)}


def test_a_stage_without_examples_is_the_datas_fault(tmp_path):
    block = {"u": {"previous_block": [], "current_block": ["i0", "i1"]}}
    data = write_released(tmp_path / "data", INDEX, {0: block})
    settings = [s for s in SMALL if not s.startswith("dataset")]
    where = ("dataset=released", "dataset.name=toy", f"dataset.path={data}", f"output={tmp_path / 'outputs'}")
    refused(peso("train", *settings, *where), "stage 1 of toy has no user")


def test_a_catalog_smaller_than_a_list_is_refused(tmp_path):
    block = {"u": {"previous_block": [], "current_block": [f"i{n}" for n in range(5)]}}
    data = write_released(tmp_path / "data", {item: INDEX[item] for item in list(INDEX)[:9]}, {0: block})
    where = ("dataset=released", "dataset.name=toy", f"dataset.path={data}", f"output={tmp_path / 'outputs'}")
    refused(peso("train", *where, "tracker=none"), "9 distinct semantic IDs, fewer than 10")
