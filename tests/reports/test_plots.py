"""Pictures of made artifacts: what is drawn is what the records hold."""

import json
import math
import xml.etree.ElementTree as ElementTree
from importlib import import_module

import pytest
from artifact_makers import made

from peso_cli.commands.plot import plot_names
from peso_cli.errors import InputError
from peso_cli.reports.collected import collect
from peso_cli.reports.look import COLOURS, style
from peso_cli.reports.plots import efficiency, forgetting, groups, stages, strength, training
from peso_cli.reports.selection import select


def drawn(room, output, *words, baseline="single", mix=False):
    """The pictures of the only group."""
    (group,) = select(collect(output, pytest.fail), words, baseline, mix)
    return room.draw(group)


def panels(room, output, *words, **options):
    """The panels of the only picture of the only group."""
    (picture,) = drawn(room, output, *words, **options)
    return picture.figure.axes


def points(axes):
    """The points of each named line."""
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {line.get_label(): list(zip(*map(list, line.get_data()), strict=True)) for line in named}


def legend(picture):
    return [text.get_text() for text in picture.figure.legends[0].get_texts()]


def near(pairs):
    return [(x, pytest.approx(y, nan_ok=True)) for x, y in pairs]


def logged(folder, losses, penalty=None):
    """Write a log of two validations and some steps."""
    lines = [{"event": "train", "step": 0, "validation_loss": 4.0}]
    for step, loss in enumerate(losses, start=1):
        pull = {} if penalty is None else {"penalty": penalty * step}
        lines.append({"event": "train", "step": step, "loss": loss, "learning_rate": 0.1, **pull})
    lines += [{"event": "train", "step": len(losses), "validation_loss": 3.5}, {"event": "result", "stage": 2}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def output(tmp_path):
    """Two methods at two stages, one of them with several strengths; everything that any plot needs."""
    for stage in (2, 3):
        logged(made(tmp_path, "single", stage, stage / 10), [3.0, 2.0])
        for place, value in enumerate((1000, 20)):
            words = (f"regularizer.strength={value}",)
            folder = made(tmp_path, "peso", stage, stage / 10 + value / 10000, variant=f"v{place}", words=words)
            logged(folder, [3.5, 2.5], penalty=0.1)
    return tmp_path


def test_each_plot_is_a_module():
    assert plot_names() == ("efficiency", "forgetting", "groups", "stages", "strength", "training")


@pytest.mark.parametrize("name", plot_names())
def test_every_plot_is_equal_bytes_on_a_second_run(output, tmp_path, name):
    room = import_module(f"peso_cli.reports.plots.{name}")
    for run in (1, 2):
        (picture,) = drawn(room, output, "stage=2")
        for form in ("svg", "png") if name == "stages" else ("svg",):
            picture.save(tmp_path / f"{run}.{form}", form)
    for file in tmp_path.glob("1.*"):
        assert file.read_bytes() == file.with_stem("2").read_bytes()
    root = ElementTree.parse(tmp_path / "1.svg").getroot()
    assert root.tag.endswith("svg")
    assert picture.name in "".join(root.itertext())


@pytest.mark.parametrize("name", [name for name in plot_names() if name != "strength"])
def test_names_are_never_mathematics_or_markup(tmp_path, name):
    for variant in ("a$x_1$<b>&--", "c"):
        logged(made(tmp_path, "peso", 2, variant=variant), [2.0])
    (picture,) = drawn(import_module(f"peso_cli.reports.plots.{name}"), tmp_path)
    picture.save(tmp_path / "picture.svg", "svg")
    ElementTree.parse(tmp_path / "picture.svg")
    # The letters are drawn as they stand: each text is in a comment, which holds no "--".
    assert "(variant=a$x_1$&lt;b&gt;&amp;- -)" in (tmp_path / "picture.svg").read_text()


def test_the_users_own_look_of_matplotlib_changes_nothing(output, tmp_path):
    import matplotlib

    drawn(stages, output)[0].save(tmp_path / "before.svg", "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "text.usetex": True}):
        drawn(stages, output)[0].save(tmp_path / "after.svg", "svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "before.svg").read_bytes() == (tmp_path / "after.svg").read_bytes()


def test_series_are_told_apart_without_colour():
    looks = {(style(place)["linestyle"], style(place)["marker"]) for place in range(36)}
    assert len(looks) == 36
    assert len({style(place)["color"] for place in range(7)}) == len(set(COLOURS)) == 7


def test_what_cannot_be_compared_is_said_in_the_picture(output):
    made(output, "l2", 2, beams=50)
    (picture,) = drawn(stages, output, mix=True)
    assert picture.name.endswith("(--mix: not all can be compared)")


# Stages


def test_lines_go_through_the_figures_of_each_stage(output):
    recall, ndcg = panels(stages, output)
    assert (recall.get_ylabel(), ndcg.get_ylabel()) == ("recall@10", "ndcg@10")
    found = points(ndcg)
    assert found["single"] == near([(2, 0.2), (3, 0.3)])
    assert found["peso (regularizer.strength=1000)"] == near([(2, 0.3), (3, 0.4)])
    assert found["popularity"] == near([(2, 0.01), (3, 0.01)])
    assert not ndcg.collections


def test_the_best_attainable_figure_is_a_reference_where_it_is_known(tmp_path):
    path = made(tmp_path, "peso", 2) / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["evaluated"]["2"]["test"]["ceiling"] = {"recall@10": 0.8, "ndcg@10": 0.7}
    path.write_text(json.dumps(metrics))
    made(tmp_path, "peso", 3)
    assert points(panels(stages, tmp_path)[0])["best attainable"] == near([(2, 0.8), (3, math.nan)])


def test_a_band_is_the_deviation_over_seeds(tmp_path):
    for seed, value in ((1, 0.1), (2, 0.3)):
        for stage in (2, 3):
            made(tmp_path, "peso", stage, value, seed=seed)
    (picture,) = drawn(stages, tmp_path)
    (band,) = picture.figure.axes[1].collections
    heights = {round(y, 9) for _, y in band.get_paths()[0].vertices}
    spread = 0.2 / math.sqrt(2)
    assert heights == {round(0.2 - spread, 9), round(0.2 + spread, 9)}
    assert legend(picture) == ["peso", "popularity", "± std over seeds 1, 2"]


def test_a_line_is_broken_where_a_stage_is_missing(output):
    made(output, "l2", 3, 0.5)
    assert points(panels(stages, output)[1])["l2"] == near([(2, math.nan), (3, 0.5)])


# Strength


def test_strengths_lie_in_order_on_a_logarithmic_axis(output):
    recall, _ = panels(strength, output)
    assert recall.get_xscale() == "log"
    found = points(recall)
    assert found["peso"] == near([(20, 0.252), (1000, 0.35)])
    assert [y for _, y in found["single"]] == pytest.approx([0.25, 0.25])
    assert "single" not in points(panels(strength, output, baseline="")[0])


def test_a_strength_of_nothing_has_a_place_too(output):
    for stage in (2, 3):
        made(output, "peso", stage, 0.1, variant="v2", words=("regularizer.strength=0",))
    recall, _ = panels(strength, output)
    assert recall.get_xscale() == "symlog"
    assert points(recall)["peso"][0] == (0, pytest.approx(0.1))
    low, high = recall.get_xlim()
    assert low < 0 < 1000 < high


def test_the_baseline_is_a_band_over_seeds(output):
    for stage in (2, 3):
        made(output, "single", stage, 0.45, seed=2)
    recall, _ = panels(strength, output)
    (band,) = recall.patches
    spread = 0.2 / math.sqrt(2)
    assert (band.get_y(), band.get_height()) == pytest.approx((0.35 - spread, 2 * spread))


def test_strengths_that_differ_in_something_else_lie_on_lines_of_their_own(output):
    for stage in (2, 3):
        words = ("regularizer.strength=20", "trainer.epochs=3")
        made(output, "peso", stage, 0.5, variant="v2", words=words)
    lines = [name for name in points(panels(strength, output)[0]) if name.startswith("peso")]
    assert len(lines) == 2
    assert all("trainer.epochs=" in name and "strength" not in name for name in lines)


def test_one_strength_is_nothing_to_draw(output):
    assert drawn(strength, output, "variant=v1") == []


# Groups


def test_bars_are_the_figures_of_user_groups(output):
    (picture,) = drawn(groups, output, "method=single")
    ndcg, recall = picture.figure.axes
    assert (ndcg.get_xlabel(), recall.get_xlabel()) == ("ndcg@5", "recall@10")
    widths = {bar.get_label(): bar.get_width() for bar in recall.patches}
    assert widths == {"new": pytest.approx(0.25), "returning": 0, "dormant": pytest.approx(0.0625)}
    assert [text.get_text().strip() for text in recall.texts] == ["\N{EN DASH}"]
    assert [label.get_text() for label in ndcg.get_yticklabels()] == ["single"]
    assert legend(picture) == ["new", "returning", "dormant"]
    assert len({bar.get_hatch() for bar in recall.patches}) == 3


# Forgetting


MATRIX = ((0.50, 0.10, 0.12), (0.40, 0.30, 0.16), (0.35, 0.20, 0.40))


def test_the_matrix_is_drawn_with_its_numbers(tmp_path):
    for stage, row in enumerate(MATRIX, start=1):
        method = "base" if stage == 1 else "peso"
        made(tmp_path, method, stage, row[stage - 1], on=dict(enumerate(row, start=1)))
    made(tmp_path, "single", 3, 0.9)
    single, peso, bar = panels(forgetting, tmp_path)
    assert (single.get_title(), peso.get_title(), bar.get_ylabel()) == ("single", "peso", "ndcg@10")
    assert peso.images[0].get_array().tolist() == [pytest.approx(list(row)) for row in MATRIX]
    assert [text.get_text() for text in peso.texts] == [f"{value:.3f}" for row in MATRIX for value in row]
    assert [text.get_text() for text in single.texts] == [*["\N{EN DASH}"] * 8, "0.900"]
    assert peso.images[0].get_clim() == single.images[0].get_clim() == pytest.approx((0.1, 0.9))


# Efficiency


def test_points_are_costs_and_figures(output):
    (picture,) = drawn(efficiency, output, "variant=v1")
    parameters, kept, seconds, memory = picture.figure.axes
    costs = ["trained parameters", "bytes, stage 3", "training s", "peak bytes"]
    assert [axes.get_xlabel() for axes in picture.figure.axes] == costs
    assert legend(picture) == ["1  peso", "2  single"]
    assert points(parameters) == {"1  peso": near([(1000, 0.252)]), "2  single": near([(1000, 0.25)])}
    assert points(kept)["2  single"] == near([(300, 0.25)])
    assert points(seconds)["1  peso"] == near([(25, 0.252)])
    assert points(memory)["2  single"] == near([(5000, 0.25)])
    assert sorted(text.get_text() for text in kept.texts) == ["1", "2"]
    assert picture.notes == ()


def test_points_that_cannot_be_drawn_are_named(output):
    for path in output.glob("*/*/single/*/*/*/metrics.json"):
        path.write_text(path.read_text().replace("stored_bytes", "other"))
    (picture,) = drawn(efficiency, output, "variant=v1")
    assert picture.notes == ("not drawn by bytes, stage 3, for want of a figure: single",)
    assert points(picture.figure.axes[1]) == {"1  peso": near([(300, 0.252)])}


def test_costs_that_no_run_has_recorded_have_no_panel(output):
    for path in output.glob("*/*/*/*/*/*/metrics.json"):
        path.write_text(path.read_text().replace("peak_bytes", "other"))
    (picture,) = drawn(efficiency, output, "variant=v1")
    assert [axes.get_xlabel() for axes in picture.figure.axes] == ["trained parameters", "bytes, stage 3", "training s"]
    assert picture.notes == ("not drawn by peak bytes, for want of a figure: single, peso",)


# Training


def test_curves_are_those_of_the_log(output):
    (picture,) = drawn(training, output, "variant=v1")
    loss, _, validation, _, penalty, _ = picture.figure.axes
    assert points(loss) == {"single": [(1, 3.0), (2, 2.0)], "peso": [(1, 3.5), (2, 2.5)]}
    assert points(validation)["single"] == [(0, 4.0), (2, 3.5)]
    assert points(penalty) == {"peso": near([(1, 0.1), (2, 0.2)])}
    assert [axes.get_title() for axes in picture.figure.axes[:2]] == ["stage 2", "stage 3"]
    assert legend(picture) == ["single", "peso"]


def test_what_trained_nothing_has_no_curve_and_is_named(output):
    for stage in (2, 3):
        folder = made(output, "pretrain", stage)
        (folder / "log.jsonl").write_text('{"event": "result", "stage": 2}\n')
    (picture,) = drawn(training, output)
    assert picture.notes == ("not drawn, for nothing was trained: pretrain",)
    assert drawn(training, output, "method=pretrain") == []


def test_a_damaged_log_is_one_line(output):
    (path,) = output.glob("*/*/single/*/*/stage_3/log.jsonl")
    path.write_text("{\n")
    with pytest.raises(InputError, match=r"log\.jsonl:1: not a JSON object"):
        drawn(training, output)
