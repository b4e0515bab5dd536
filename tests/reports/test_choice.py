"""Choosing a strength or a learning rate: by validation users alone, and never on figures that aren't there."""

import json
import shlex

import pytest
from artifact_makers import made
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.commands.tables import tables
from peso_cli.errors import InputError
from peso_cli.reports.choice import chosen_variant, only_chosen
from peso_cli.reports.collected import Place, Record, collect
from peso_cli.reports.plots import strength as strength_plot
from peso_cli.reports.selection import Variant, select
from peso_cli.reports.tables import learning_rate, main, strength

STRENGTHS = (10, 300, 3000)


def swept(output, valid, test=(0.3, 0.2, 0.1), stages=(2, 3), seed=1, method="peso"):
    """One method with several strengths and their figures on validation and on test users."""
    for place, (value, on_valid, on_test) in enumerate(zip(STRENGTHS, valid, test, strict=True)):
        for stage in stages:
            words = (f"regularizer.strength={value}",)
            made(output, method, stage, on_test, seed=seed, variant=f"v{place}", words=words, valid=on_valid)


def group_of(output, *words, baseline=""):
    (group,) = select(collect(output, pytest.fail), words, baseline)
    return group


def chosen(output):
    found = chosen_variant(group_of(output).variants)
    return found and found.any.settings["regularizer.strength"]


def notes(table):
    return [note.text for note in table.footnotes]


def commands(table):
    return [shlex.split(note.command) for note in table.footnotes if note.command]


# The choice


def test_the_best_on_validation_is_chosen_whatever_test_users_say(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, 0.2), test=(0.5, 0.1, 0.4))
    assert chosen(tmp_path) == 300


def test_nothing_is_chosen_while_a_figure_is_missing(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, None))
    assert chosen(tmp_path) is None


def test_nothing_is_chosen_while_a_stage_is_missing(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, 0.2))
    made(tmp_path, "peso", 4, variant="v1", words=("regularizer.strength=300",), valid=0.3)
    assert chosen(tmp_path) is None


def test_the_seeds_that_all_have_are_compared(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, 0.2))
    swept(tmp_path, valid=(0.4, 0.3, 0.2), seed=2)
    assert chosen(tmp_path) == 300
    for stage in (2, 3):
        made(tmp_path, "peso", stage, seed=3, variant="v0", words=("regularizer.strength=10",), valid=0.9)
    assert chosen(tmp_path) == 300


def test_shorter_lists_are_compared_at_their_end(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, 0.2))
    for path in tmp_path.rglob("metrics.json"):
        path.write_text(path.read_text().replace('"top_k": 10', '"top_k": 5'))
    assert chosen(tmp_path) == 300


def records(values):
    """Records with nothing but a figure of validation users, by seed and stage."""
    found = {}
    for (seed, stage), value in values.items():
        metrics = {
            "protocol": {"top_k": 10},
            "evaluated": {str(stage): {"valid": {"ndcg@10": value}, "test": {"ndcg@10": -value}}},
        }
        place = Place("d", "b", "m", "v", seed, stage)
        found[seed, stage] = Record(None, place, True, metrics, "", None, {}, "", {}, {})
    return found


figures = st.sampled_from([0.1, 0.2, 0.3, 0.4])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(figures, min_size=4, max_size=4), min_size=1, max_size=5), st.randoms())
def test_the_choice_has_the_highest_mean_in_any_order(candidates, order):
    places = [(1, 2), (1, 3), (2, 2), (2, 3)]
    variants = [Variant(f"m{n}", "m", records(dict(zip(places, row, strict=True)))) for n, row in enumerate(candidates)]
    best = chosen_variant(variants)
    means = [sum(row) for row in candidates]
    assert means[int(best.name[1:])] == pytest.approx(max(means))
    order.shuffle(variants)
    assert chosen_variant(variants) == best


# Tables


def test_the_table_shows_validation_and_marks_what_it_chooses(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, 0.2))
    (table,) = strength.build(group_of(tmp_path))
    names = [column.name for column in table.columns]
    assert names[-2:] == ["ndcg@10 (validation)", "recall@10 (validation)"]
    cells = {row.name: row.cells[-2] for row in table.rows}
    assert [cell.mean for cell in cells.values()] == [pytest.approx(v) for v in (0.1, 0.3, 0.2)] + [None]
    assert [cell.mark for cell in cells.values()] == ["", "best", "second", ""]
    assert notes(table)[-1] == (
        "chosen on validation: peso (regularizer.strength=300) "
        "(highest ndcg@10 of validation users, mean over stages 2, 3, seed 1)"
    )


def test_what_was_not_scored_on_validation_is_named_with_its_command(tmp_path):
    swept(tmp_path, valid=(0.1, None, 0.2))
    (table,) = strength.build(group_of(tmp_path))
    assert "missing: peso (regularizer.strength=300), seed 1, stages 2, 3, figures of validation users" in notes(table)
    assert not any("chosen on validation:" in text for text in notes(table))
    assert commands(table) == [
        [
            *("peso", "evaluate", "stage=[2,3]", "method=peso", "dataset=synthetic", "backbone=tiny"),
            *("regularizer.strength=300", "seed=1", f"output={tmp_path}", "evaluation.split=valid"),
        ]
    ]


def test_no_seed_with_all_stages_is_said_to_be_why_nothing_is_chosen(tmp_path):
    swept(tmp_path, valid=(0.1, 0.2, 0.3))
    made(tmp_path, "peso", 4, variant="v0", words=("regularizer.strength=10",), valid=0.1)
    (table,) = strength.build(group_of(tmp_path))
    assert any(text.startswith("nothing is chosen on validation: no seed has all stages of") for text in notes(table))


def test_variants_that_differ_in_more_are_chosen_among_apart(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, 0.2))
    for place, (value, valid) in enumerate(((10, 0.5), (300, 0.4))):
        words = (f"regularizer.strength={value}", "trainer.later_epochs=1")
        for stage in (2, 3):
            made(tmp_path, "peso", stage, variant=f"w{place}", words=words, valid=valid)
    (table,) = strength.build(group_of(tmp_path))
    first, second = [text for text in notes(table) if text.startswith("chosen on validation")]
    assert "trainer.later_epochs=1, regularizer.strength=10)" in first
    assert "trainer.later_epochs=5, regularizer.strength=300)" in second


def test_learning_rates_are_chosen_alike(tmp_path):
    for place, (rate, valid) in enumerate(((0.01, 0.2), (0.0002, 0.4))):
        made(tmp_path, "single", variant=f"v{place}", words=(f"trainer.learning_rate={rate}",), valid=valid)
    (table,) = learning_rate.build(group_of(tmp_path))
    assert notes(table)[-1].startswith("chosen on validation: single (trainer.learning_rate=0.0002)")
    assert [cell.mean for cell in table.rows[0].cells[-2:]] == [pytest.approx(0.4)] * 2


# --chosen


def test_only_the_chosen_strength_stays_under_the_methods_name(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, 0.2), test=(0.5, 0.1, 0.4))
    for stage in (2, 3):
        made(tmp_path, "single", stage, 0.2)
    group = only_chosen(group_of(tmp_path, baseline="peso (regularizer.strength=300)"))
    assert [variant.name for variant in group.variants] == ["single", "peso"]
    assert group.baseline == "peso"
    (table,) = main.build(group)
    assert {row.name: row.cells[3].mean for row in table.rows}["peso"] == pytest.approx(0.1)
    (note,) = group.notes
    assert note.startswith("chosen on validation: peso (regularizer.strength=300)")
    assert note.endswith(", of regularizer.strength 10, 300, 3000")


def test_variants_that_differ_otherwise_all_stay(tmp_path):
    for place in range(2):
        made(tmp_path, "single", variant=f"v{place}", words=(f"trainer.later_epochs={place + 1}",))
        made(tmp_path, "peso", variant=f"same{place}")
    group = group_of(tmp_path)
    assert only_chosen(group) is group


def test_the_command_that_brings_what_the_choice_needs_is_in_the_complaint(tmp_path):
    swept(tmp_path, valid=(0.1, 0.3, None))
    with pytest.raises(InputError, match=r"^--chosen: missing: .*; first run: peso evaluate 'stage=\[2,3\]'") as caught:
        only_chosen(group_of(tmp_path))
    assert "\n" not in str(caught.value)
    made(tmp_path, "peso", 4, variant="v0", words=("regularizer.strength=10",))
    with pytest.raises(InputError, match="see peso tables strength method=peso"):
        only_chosen(group_of(tmp_path))


def test_a_table_of_chosen_variants_says_so(tmp_path, capsys):
    swept(tmp_path, valid=(0.1, 0.3, 0.2))
    tables("main", tmp_path, [], "json", "", False, chosen=True)
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [row["name"] for row in table["rows"]] == ["peso", "popularity"]
    assert table["footnotes"][-1]["text"].startswith("chosen on validation: ")


def test_the_plot_of_strengths_still_knows_its_rows(tmp_path):
    swept(tmp_path, valid=(None, None, None))
    assert len(strength_plot.draw(group_of(tmp_path))) == 1
