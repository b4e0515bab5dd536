import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peso_cli.errors import InputError
from peso_cli.sweeps.grid import read_grid, split_words


def refusal(words, config_dir=None) -> str:
    with pytest.raises(InputError) as caught:
        read_grid(words, config_dir)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_grid_has_every_combination_in_order():
    grid = read_grid(["method=peso,single", "stage=3", "seed=1,2"])
    assert grid.points == (
        ("method=peso", "stage=3", "seed=1"),
        ("method=peso", "stage=3", "seed=2"),
        ("method=single", "stage=3", "seed=1"),
        ("method=single", "stage=3", "seed=2"),
    )
    assert grid.swept == ("method", "seed")


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=range(1,4)", ["1", "2", "3"]),
        ("seed=choice(3,5)", ["3", "5"]),
        ("evaluation.on=[1,2],[3]", ["[1,2]", "[3]"]),
        ("regularizer.strength=1e3,0.5", ["1000.0", "0.5"]),
    ],
)
def test_values_are_as_hydra_writes_them(word, values):
    key = word.partition("=")[0]
    assert read_grid([word]).points == tuple((f"{key}={value}",) for value in values)


@given(
    st.dictionaries(
        st.sampled_from(["seed", "trainer.epochs", "dataset.users", "prompt.window"]),
        st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
        min_size=1,
    )
)
def test_a_grid_is_the_product_of_its_axes(axes):
    grid = read_grid([f"{key}={','.join(map(str, values))}" for key, values in axes.items()])
    assert grid.points == tuple(
        tuple(f"{key}={value}" for key, value in zip(axes, point, strict=True))
        for point in itertools.product(*axes.values())
    )
    assert grid.swept == tuple(key for key, values in axes.items() if len(values) > 1)


def test_a_pattern_means_the_choices_that_fit_it():
    points = read_grid(["method=glob([sumlora*,sdlora*],exclude=*_all*)"]).points
    assert [point[0].partition("=")[2] for point in points] == [
        "sdlora_latest",
        "sdlora_latest_inherit",
        "sumlora_latest",
        "sumlora_latest_inherit",
    ]
    assert "fits no choice" in refusal(["method=glob(x*)"])
    assert "fits no choice" in refusal(["seed=glob(*)"])


def test_an_experiment_brings_its_grid_and_words_take_its_place():
    grid = read_grid(["experiment=strength", "seed=7"])
    assert len(grid.points) == 7 * 2
    assert all("experiment=strength" in point and "seed=7" in point for point in grid.points)
    assert grid.swept == ("regularizer.strength", "evaluation.split")


def test_an_experiment_of_ones_own_brings_its_grid(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      method: l2,single\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    points = read_grid(["experiment=mine"], tmp_path).points
    assert points == (("method=l2", "experiment=mine"), ("method=single", "experiment=mine"))


def test_words_of_the_launcher_are_told_apart():
    words = ["method=peso", "launcher=joblib", "seed=1,2", "launcher.jobs=3"]
    assert split_words(words) == (["method=peso", "seed=1,2"], ["launcher=joblib", "launcher.jobs=3"])


def test_what_no_grid_can_take_is_refused_in_a_line():
    assert "interval" in refusal(["regularizer.strength=interval(1,2)"])
    assert "one experiment" in refusal(["experiment=main,strength"])
    assert "can't be read" in refusal(["seed=1,,2"])
    assert "can't be changed" in refusal(["hydra.sweeper.params=1,2"])
    assert "experiment=mian: no such choice" in refusal(["experiment=mian"])
