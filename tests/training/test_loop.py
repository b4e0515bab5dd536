import json
import math
import os
import shutil
import signal
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from methods.choosing import chosen
from peft import LoraConfig, get_peft_model
from populations import random_block
from worlds import COMPACT, block_of, random_catalog, small_llama, vocabulary_of

from peso_cli.backbones.prompts import render
from peso_cli.config.schema import Trainer
from peso_cli.data.examples import examples
from peso_cli.errors import DivergedError
from peso_cli.methods.gradients import with_gradients
from peso_cli.methods.lora import lora_factors
from peso_cli.methods.parts import Penalty, RegularizerStart
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.training import checkpoints, loop
from peso_cli.training.checkpoints import Checkpoint, copy_state, load_checkpoint
from peso_cli.training.layouts import Packed
from peso_cli.training.loop import Job, Progress, rate_factor, train, validation_loss
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import one_by_one, shared
from peso_cli.training.steps import label_loss

CATALOG = random_catalog(30, (3, 4, 5))
VOCABULARY = vocabulary_of(CATALOG)
PROMPT = render(COMPACT, VOCABULARY, CATALOG)
LAYOUT = Packed(PROMPT)
RANDOM = np.random.default_rng(0)
BLOCK = block_of({f"u{n}": ([], RANDOM.integers(0, 30, RANDOM.integers(4, 12)).tolist()) for n in range(12)})
OTHER = shared(examples(random_block(9, seed=4), "train", 5))
TRAIN, VALID = shared(examples(BLOCK, "train", 5)), one_by_one(examples(BLOCK, "valid", 5))
SETTINGS = {
    "epochs": 2,
    "later_epochs": 2,
    "learning_rate": 0.01,
    "later_stage_scale": 1.0,
    "batch_tokens": 100,
    "accumulation": 2,
    "warmup": 0.1,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "temperature": 1.0,
    "patience": 9,
    "packing": "auto",
    "validation_users": 100,
    "checkpoint_minutes": 60.0,
    "checkpoint_steps": None,
}


class Log:
    """Keeps what it is told, and counts as if every entry were seven bytes long."""

    def __init__(self, entries=()):
        self.entries = list(entries)

    @property
    def position(self):
        return 7 * len(self.entries)

    def curve(self, step, values):
        self.entries.append((step, dict(values)))

    def of(self, name):
        return [values[name] for _, values in self.entries if name in values]


def full_model(seed=0, dropout=0.0):
    """A small model that trains whole."""
    model = small_llama(VOCABULARY, seed)
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = dropout
    return model


def lora_model(seed=0, dropout=0.0):
    """A small model that trains an adapter whose factors are all non-zero."""
    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=dropout, init_lora_weights=False)
    return get_peft_model(full_model(seed), config)


def job_of(
    model, path, seed=5, regularizer=None, resume=None, tick=lambda done, total, note: None, log=None, **changed
):
    trainer = Trainer(**{**SETTINGS, **changed})
    start = RegularizerStart(model, lora_factors(model))
    return Job(
        model=model,
        penalty=(regularizer or NoRegularizer()).begin(start),
        train=Packer((TRAIN,), LAYOUT, trainer.batch_tokens),
        valid=Packer((VALID,), LAYOUT, 400),
        trainer=trainer,
        epochs=trainer.epochs,
        learning_rate=trainer.learning_rate,
        seed=seed,
        sharded=False,
        checkpoint=path / "checkpoint.safetensors",
        resume=resume,
        log=log or Log(),
        accelerator=Accelerator(cpu=True),
        tick=tick,
    )


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# The course of a stage


def test_training_learns_and_ends_in_its_best_state(tmp_path):
    job = job_of(full_model(), tmp_path, epochs=6)
    progress = train(job)
    losses = [row["validation_loss"] for row in progress.history]
    assert progress.epoch == 6
    assert len(losses) == 7
    assert min(losses) < losses[0] - 0.1
    assert progress.best_epoch == int(np.argmin(losses))
    assert validation_loss(job.model, job.valid, 1.0) == progress.best_loss == min(losses)


def test_what_does_not_improve_ends_early_and_is_undone(tmp_path):
    model = full_model()
    before = copy_state(model)
    progress = train(job_of(model, tmp_path, epochs=9, learning_rate=3.0, patience=2))
    assert (progress.epoch, progress.best_epoch) == (2, 0)
    assert same(copy_state(model), before)


def test_no_epochs_leave_the_model_as_it_is(tmp_path):
    model = full_model()
    before = copy_state(model)
    progress = train(job_of(model, tmp_path, epochs=0))
    assert (progress.step, progress.epoch, len(progress.history)) == (0, 0, 1)
    assert same(copy_state(model), before)


def test_every_step_learns_something_even_where_there_is_but_one(tmp_path):
    job = job_of(full_model(), tmp_path, epochs=1, accumulation=1000)
    progress = train(job)
    assert progress.step == 1
    assert job.log.of("learning_rate")[0] > 0
    assert progress.history[1]["validation_loss"] != progress.history[0]["validation_loss"]


def test_equal_jobs_are_equal_to_the_bit_and_other_seeds_are_not(tmp_path):
    runs = []
    for seed in (5, 5, 6):
        job = job_of(full_model(dropout=0.3), tmp_path, seed=seed)
        train(job)
        runs.append((copy_state(job.model), job.log.entries))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not same(runs[0][0], runs[2][0])


def test_a_step_over_several_batches_is_a_step_over_all_of_them(tmp_path):
    found = []
    for tokens, batches in ((60, 1000), (100_000, 1)):
        job = job_of(full_model(), tmp_path, epochs=1, batch_tokens=tokens, accumulation=batches)
        assert (len(job.train.plan(None)) > 3) == (batches == 1000)
        train(job)
        found.append((job.log.of("loss"), job.log.of("gradient_norm")))
    (loss,), (norm,) = found[0]
    assert found[1][0] == [pytest.approx(loss, rel=1e-5)]
    assert found[1][1] == [pytest.approx(norm, rel=1e-4)]


def one_step(path, *sources):
    """The loss and the gradient's norm of a single step over sources of training sequences."""
    job = job_of(full_model(), path, epochs=1, accumulation=1000)
    job = replace(job, train=Packer(sources, LAYOUT, 60))
    assert len(job.train.plan(None)) > 3
    train(job)
    return [*job.log.of("loss"), *job.log.of("gradient_norm")]


def test_a_step_takes_the_weighted_mean_of_its_labels(tmp_path):
    weights = (0.25, 3.0)
    found = one_step(tmp_path, *(replace(s, weight=w) for s, w in zip((TRAIN, OTHER), weights, strict=True)))
    model, labels = full_model().train(), [4 * int(source.targets.sum()) for source in (TRAIN, OTHER)]
    losses = [
        label_loss(model, LAYOUT.batch([(source, row) for row in range(len(source))]), 1.0) for source in (TRAIN, OTHER)
    ]
    mean = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / np.dot(weights, labels)
    mean.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert found == [pytest.approx(mean.item(), rel=1e-5), pytest.approx(norm, rel=1e-4)]


def test_twice_the_weight_is_twice_the_examples_and_one_weight_for_all_is_none(tmp_path):
    twice = one_step(tmp_path, TRAIN, OTHER, TRAIN)
    assert one_step(tmp_path, replace(TRAIN, weight=2.0), OTHER) == pytest.approx(twice, rel=1e-4)
    plain = one_step(tmp_path, TRAIN, OTHER)
    assert plain != pytest.approx(twice, rel=1e-3)
    assert one_step(tmp_path, replace(TRAIN, weight=0.2), replace(OTHER, weight=0.2)) == pytest.approx(plain, rel=1e-4)
    assert one_step(tmp_path, replace(TRAIN, weight=1.0), OTHER) == plain


def test_every_label_is_met_once_in_an_epoch(tmp_path, monkeypatch):
    seen, original = [], loop.label_loss

    def counted(model, batch, temperature):
        if model.training:
            seen.extend(batch.labels.tolist())
        return original(model, batch, temperature)

    monkeypatch.setattr(loop, "label_loss", counted)
    train(job_of(full_model(), tmp_path, epochs=1))
    wanted = PROMPT.answers[examples(BLOCK, "train", 5).target_items]
    every = np.concatenate([wanted, np.full((len(wanted), 1), PROMPT.end)], axis=1)
    assert sorted(seen) == sorted(every.reshape(-1).tolist())


def test_the_log_and_the_history_tell_the_same(tmp_path):
    ticks = []
    job = job_of(full_model(), tmp_path, tick=lambda *tick: ticks.append(tick))
    progress = train(job)
    losses = job.log.of("loss")
    assert [step for step, values in job.log.entries if "loss" in values] == list(range(1, progress.step + 1))
    assert job.log.of("validation_loss") == [row["validation_loss"] for row in progress.history]
    per_epoch = progress.step // 2
    for epoch in (1, 2):
        mean = sum(losses[(epoch - 1) * per_epoch : epoch * per_epoch]) / per_epoch
        assert progress.history[epoch]["loss"] == pytest.approx(mean)
    assert [tick[:2] for tick in ticks] == [(step, progress.step) for step in range(1, progress.step + 1)]


def test_validation_is_a_mean_over_labels_whatever_the_batches():
    model = full_model(dropout=0.5)
    model.train()
    found = [validation_loss(model, Packer((VALID,), LAYOUT, tokens), 1.0) for tokens in (1, 60, 10_000)]
    assert found == [pytest.approx(found[0], rel=1e-6)] * 3
    assert not model.training


# The learning rate


@given(st.integers(1, 400), st.floats(0, 0.99))
def test_the_rate_rises_to_its_peak_and_falls_and_is_never_zero(steps, warmup):
    rates = [rate_factor(step, steps, warmup) for step in range(steps)]
    rising = math.ceil(warmup * steps)
    assert all(0 < rate <= 1 for rate in rates)
    assert all(a < b for a, b in pairwise(rates[: rising + 1]))
    assert all(a > b for a, b in pairwise(rates[rising:]))
    assert rising == steps or rates[rising] == 1


def test_steps_take_the_rate_of_their_number(tmp_path):
    job = job_of(full_model(), tmp_path, warmup=0.4)
    steps = train(job).step
    assert job.log.of("learning_rate") == [0.01 * rate_factor(step, steps, 0.4) for step in range(steps)]


# The penalty


def distance(model, before):
    return math.sqrt(sum(float((now - before[name]).square().sum()) for name, now in copy_state(model).items()))


def test_a_penalty_holds_the_factors_where_they_were(tmp_path):
    moved = []
    for strength in (0.0, 1e4):
        model = lora_model()
        before = copy_state(model)
        job = job_of(model, tmp_path, epochs=3, regularizer=chosen("l2", strength=strength), weight_decay=0.0)
        train(job)
        moved.append(distance(model, before))
        assert bool(job.log.of("penalty")) == bool(strength)
    assert moved[1] < moved[0] / 3


def test_the_penalty_is_told_apart_from_the_loss(tmp_path):
    job = job_of(lora_model(), tmp_path, regularizer=chosen("softmax_kl", strength=1e6))
    progress = train(job)
    penalties = job.log.of("penalty")
    assert penalties[0] == 0
    assert penalties[-1] > 0
    for values in (values for _, values in job.log.entries if "penalty" in values):
        whole = values["loss"] + values["penalty"]
        assert values["penalty_share"] == pytest.approx(values["penalty"] / whole)
    assert "penalty" not in progress.history[0]
    assert progress.history[1]["penalty_share"] >= 0
    # Validation leaves the penalty out, so that methods compare.
    assert validation_loss(job.model, job.valid, 1.0) == progress.best_loss


# Going on


def snapshots(monkeypatch, folder):
    """Keep every checkpoint that is written."""
    original, kept = checkpoints.save_checkpoint, []

    def keeping(path, checkpoint):
        original(path, checkpoint)
        kept.append(shutil.copy(path, folder / f"{len(kept)}.safetensors"))

    monkeypatch.setattr(checkpoints, "save_checkpoint", keeping)
    return kept


@pytest.mark.parametrize("build", [full_model, lora_model])
def test_a_run_goes_on_from_any_checkpoint_as_if_never_stopped(tmp_path, monkeypatch, build):
    regularizer = chosen("softmax_kl", strength=1e5, reduction="mean") if build is lora_model else NoRegularizer()
    changed = {"checkpoint_minutes": 0.0, "epochs": 3, "patience": 1, "regularizer": regularizer}
    with monkeypatch.context() as patch:
        kept = snapshots(patch, tmp_path)
        straight = job_of(build(dropout=0.2), tmp_path, **changed)
        expected = train(straight)
    assert len(kept) == expected.step + expected.epoch
    for path in kept:
        found = load_checkpoint(path)
        log = Log(straight.log.entries[: found.progress["log_position"] // 7])
        job = job_of(build(dropout=0.2), tmp_path, resume=found, log=log, **changed)
        assert train(job) == expected
        assert same(copy_state(job.model), copy_state(straight.model))
        assert job.log.entries == straight.log.entries


def test_every_so_many_steps_there_is_a_checkpoint(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda path, checkpoint: saved.append(checkpoint.progress))
    steps = train(job_of(full_model(), tmp_path, checkpoint_steps=2, accumulation=1)).step
    inside = [progress["step"] for progress in saved if progress["step_in_epoch"]]
    assert len(inside) > 2
    assert inside == list(range(2, steps + 1, 2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_signal_in_a_validation_interrupts_behind_it_the_last_one_too(tmp_path, monkeypatch, number, epoch):
    original, seen = loop.validation_loss, []

    def validating(*args):
        seen.append(args)
        if len(seen) == 1 + epoch:
            os.kill(os.getpid(), number)
        return original(*args)

    monkeypatch.setattr(loop, "validation_loss", validating)
    job = job_of(full_model(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(job)
    found = load_checkpoint(job.checkpoint).progress
    assert len(found["history"]) == 1 + epoch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_interrupts(tmp_path, number):
    before = signal.getsignal(number)

    def stop_at_three(done, total, note):
        if done == 3:
            os.kill(os.getpid(), number)

    job = job_of(full_model(), tmp_path, tick=stop_at_three)
    with pytest.raises(KeyboardInterrupt):
        train(job)
    found = load_checkpoint(job.checkpoint)
    assert found.progress["step"] == 3
    assert found.progress["log_position"] == job.log.position
    assert same(found.parts["model"], copy_state(job.model))
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait(tmp_path):
    def stop_twice(done, total, note):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    job = job_of(full_model(), tmp_path, tick=stop_twice)
    with pytest.raises(KeyboardInterrupt):
        train(job)
    assert not job.checkpoint.exists()


# What can't go on


def poisoned(monkeypatch, value, at, of="loss"):
    """Let the loss of a training step, or its gradient alone, be no finite number."""
    calls, original = [], loop.label_loss

    def breaking(model, batch, temperature):
        loss = original(model, batch, temperature)
        calls.append(model.training)
        if sum(calls) != at or not model.training:
            return loss
        if of == "loss":
            return loss * value
        next(p for p in model.parameters() if p.requires_grad).register_hook(lambda gradient: gradient * value)
        return loss

    monkeypatch.setattr(loop, "label_loss", breaking)


def broken_off(job):
    """Train up to where the run diverges; return the error."""
    with pytest.raises(DivergedError) as caught:
        train(job)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("of", "named"), [("loss", "the loss"), ("gradient_norm", "the norm of the gradient")])
def test_a_step_that_rests_on_what_is_not_finite_is_not_taken_and_the_state_before_it_is_kept(
    tmp_path, monkeypatch, value, of, named
):
    poisoned(monkeypatch, value, 3, of)
    model, states = full_model(), []
    job = job_of(model, tmp_path, accumulation=1, tick=lambda *_: states.append(copy_state(model)))
    error = broken_off(job)
    assert len(states) == 2
    assert same(copy_state(model), states[-1])
    assert str(error).startswith(f"step 3: {named} is ")
    assert str(error).endswith("; the step was not taken. Lower trainer.learning_rate")
    assert (error.known["step"], error.known["what"]) == (3, of)
    json.dumps(error.known, allow_nan=False)
    kept = load_checkpoint(job.checkpoint)
    assert kept.progress["step"] == 2
    assert same(kept.parts["model"], states[-1])
    assert kept.parts["optimiser"]
    assert kept.progress["log_position"] == job.log.position


def test_a_run_goes_on_from_before_the_refused_step_as_if_it_had_never_met_it(tmp_path, monkeypatch):
    straight = job_of(full_model(dropout=0.2), tmp_path / "straight", accumulation=1)
    expected = train(straight)
    with monkeypatch.context() as patch:
        poisoned(patch, math.nan, 4)
        broken = job_of(full_model(dropout=0.2), tmp_path, accumulation=1)
        broken_off(broken)
    found = load_checkpoint(broken.checkpoint)
    job = job_of(full_model(dropout=0.2), tmp_path, accumulation=1, resume=found, log=broken.log)
    assert train(job) == expected
    assert job.log.entries == straight.log.entries
    assert same(copy_state(job.model), copy_state(straight.model))


@dataclass(frozen=True)
class Pulling:
    """A penalty that is, or whose gradient is, no finite number from a step on."""

    value: float
    gradient: float
    name: str = "pulling"

    def begin(self, start):
        factors, steps = [f for pair in start.factors.values() for f in pair], []

        def penalty(step):
            steps.append(step)
            late = len(steps) > 2
            gradients = [torch.full_like(f, self.gradient if late else 0.1) for f in factors]
            return with_gradients(torch.tensor(self.value if late else 1.0), factors, gradients)

        return Penalty(penalty)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_penalty_that_is_not_finite_is_called_by_its_name(tmp_path, value):
    for pulling, what, words in (
        (Pulling(value, 0.1), "penalty", "the penalty"),
        (Pulling(value, value), "penalty", "the penalty"),
        (Pulling(1.0, value), "penalty_gradient", "the norm of the penalty's gradient"),
    ):
        error = broken_off(job_of(lora_model(), tmp_path, accumulation=1, regularizer=pulling))
        assert error.known["what"] == what
        assert str(error).startswith(f"step 3: {words} is {value} (loss ")
        assert str(error).endswith("the step was not taken. Lower regularizer.strength")


def test_a_penalty_as_strong_as_no_number_is_refused_at_the_first_step(tmp_path):
    job = job_of(lora_model(), tmp_path, regularizer=chosen("softmax_kl", strength=1e300))
    before = copy_state(job.model)
    error = broken_off(job)
    assert error.known["step"] == 1
    assert error.known["what"].startswith("penalty")
    assert str(error).endswith("Lower regularizer.strength")
    assert same(copy_state(job.model), before)


@pytest.mark.parametrize("build", [full_model, lora_model])
def test_weights_that_a_step_has_taken_beyond_all_numbers_never_get_into_a_checkpoint(tmp_path, build):
    beyond = {"weight_decay": 1e300, "accumulation": 1, "checkpoint_minutes": 0.0}
    job = job_of(build(), tmp_path, **beyond)
    before = copy_state(job.model)
    error = broken_off(job)
    assert error.known["step"] == 2
    assert not job.checkpoint.exists()
    assert not all(torch.isfinite(t).all() for t in copy_state(job.model).values())
    # What was kept before such a step stays.
    kept = Checkpoint(
        {"model": before, "best": copy_state(build())}, asdict(Progress(history=[{"epoch": 0, "validation_loss": 9.0}]))
    )
    checkpoints.save_checkpoint(job.checkpoint, kept)
    whole = job.checkpoint.read_bytes()
    broken_off(job_of(build(), tmp_path, resume=kept, **beyond))
    assert job.checkpoint.read_bytes() == whole


def test_weights_that_are_not_finite_are_noticed_before_any_training(tmp_path):
    model = full_model()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    error = broken_off(job_of(model, tmp_path))
    assert str(error).startswith(
        "before any training the validation loss is nan. The weights that the stage begins from"
    )
    assert error.known == {"step": 0, "what": "validation_loss", "validation_loss": "nan"}


def test_a_validation_loss_that_is_not_finite_ends_the_run_and_is_no_state_to_keep(tmp_path, monkeypatch):
    found = iter([2.0, 1.9, math.nan])
    monkeypatch.setattr(loop, "validation_loss", lambda *args: next(found))
    job = job_of(lora_model(), tmp_path, epochs=3, regularizer=chosen("l2", strength=0.1))
    error = broken_off(job)
    assert str(error) == (
        "after epoch 2 the validation loss is nan. Lower trainer.learning_rate or regularizer.strength"
    )
    kept = load_checkpoint(job.checkpoint)
    assert (kept.progress["epoch"], kept.progress["best_epoch"], kept.progress["best_loss"]) == (1, 1, 1.9)
