import json

import pytest
from artifact_makers import figures_document, made

from peso_cli.errors import InputError
from peso_cli.reports.collected import collect
from peso_cli.reports.selection import select, shown_value


def chosen(output, *words, **more):
    return select(collect(output, pytest.fail), words, **more)


def names(output, *words, **more):
    return [variant.name for group in chosen(output, *words, **more) for variant in group.variants]


def refused(output, *words, parts, **more):
    with pytest.raises(InputError) as caught:
        chosen(output, *words, **more)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


@pytest.fixture
def output(tmp_path):
    """The base, and three methods of the built-in world."""
    made(tmp_path, "base", 1)
    for method in ("replay", "single", "peso"):
        made(tmp_path, method, 2)
        made(tmp_path, method, 3)
    return tmp_path


def test_published_methods_come_first_in_the_papers_order(output):
    (group,) = chosen(output)
    assert [variant.name for variant in group.variants] == ["single", "peso", "replay"]
    assert (group.title, group.stages, group.seeds) == ("synthetic, tiny", (2, 3), (1,))
    assert (group.span, chosen(output, "stage=3")[0].span) == ("stages 2, 3", "stage 3")


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["method=peso"], ["peso"]),
        (["method=peso,single"], ["single", "peso"]),
        (["method=[peso,single]", "seed=1"], ["single", "peso"]),
        (["regularizer.strength=3000"], ["single", "peso", "replay"]),
        (["regularizer.strength=3000.0", "method=peso"], ["peso"]),
        (["regularizer.name=none"], ["single", "replay"]),
        (["memory.name=replay"], ["replay"]),
        (["variant=v1", "decoding.beams=30", "method=single"], ["single"]),
        (["dataset.seed=2", "method=single", "variant=v1"], ["single"]),
    ],
)
def test_filters_choose(output, words, left):
    assert names(output, *words) == left


def test_stages_can_be_chosen(output):
    assert chosen(output, "stage=2..9")[0].stages == (2, 3)
    assert chosen(output, "stage=3")[0].stages == (3,)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("metod=peso", ["unknown key 'metod'", "did you mean method?"]),
        ("method=pesso", ["method=pesso: no such method", "did you mean peso?"]),
        ("peso", ["'peso' can't be read", "KEY=VALUE"]),
        ("method=", ["can't be read"]),
        ("stage=a..b", ["stage=a..b"]),
        ("seed=7", ["nothing finished", "seed=7"]),
    ],
)
def test_a_filter_that_is_wrong_is_one_line(output, word, parts):
    refused(output, word, parts=parts)


def test_nothing_at_all_is_one_line(tmp_path):
    made(tmp_path, "base", 1)
    refused(tmp_path, parts=["nothing finished behind stage 1", "peso runs"])


def test_a_method_that_was_asked_for_and_is_not_there_is_known_to_be_absent(output):
    (group,) = chosen(output, "method=l2,peso")
    assert group.absent == ("l2",)


# Variants


def test_variants_are_named_by_the_settings_in_which_they_differ(tmp_path):
    for place, strength in enumerate((10, 3000)):
        words = (f"regularizer.strength={strength}", f"output=there{place}", f"variant=x{place}")
        made(tmp_path, "peso", variant=f"x{place}", words=words)
    made(tmp_path, "single")
    expected = ["single", "peso (regularizer.strength=10)", "peso (regularizer.strength=3000)"]
    assert names(tmp_path) == expected
    assert names(tmp_path, "regularizer.strength=10") == ["single", "peso"]


def test_variants_stand_in_the_order_of_their_numbers(tmp_path):
    for place, strength in enumerate((2, 2000000, 20, 200000, 2000)):
        made(tmp_path, "peso", variant=f"v{place}", words=(f"regularizer.strength={strength}",))
    found = [name.partition("=")[2].rstrip(")") for name in names(tmp_path)]
    assert found == ["2", "20", "2000", "200000", "2000000"]


def test_variants_that_differ_in_nothing_told_are_named_by_their_folder(tmp_path):
    for variant in ("a", "b"):
        made(tmp_path, "peso", variant=variant)
    assert names(tmp_path) == ["peso (variant=a)", "peso (variant=b)"]


def test_several_settings_are_all_told(tmp_path):
    made(tmp_path, "peso", variant="a", words=("trainer.epochs=3", "regularizer.strength=1"))
    made(tmp_path, "peso", variant="b", words=("trainer.epochs=4", "regularizer.strength=2"))
    assert names(tmp_path)[0] == "peso (trainer.epochs=3, regularizer.strength=1)"


def test_datasets_have_tables_of_their_own(tmp_path):
    made(tmp_path, "peso", data="one")
    made(tmp_path, "peso", dataset="amazon_games", data="two", catalog="two", beams=10)
    assert [group.dataset for group in chosen(tmp_path)] == ["amazon_games", "synthetic"]


# What must not be mixed


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"beams": 10}, "decoding.beams (30 and 10)"),
        ({"top_k": 5}, "decoding.top_k (10 and 5)"),
        ({"normalise": "level"}, "decoding.normalise"),
        ({"constraint": "positional"}, "decoding.constraint"),
        ({"window": 10}, "prompt.window (20 and 10)"),
        ({"catalog": "other"}, "items and semantic IDs"),
        ({"data": "other"}, "the data"),
        ({"words": ("prompt=instruct",)}, "prompt.name"),
    ],
)
def test_runs_that_can_not_be_compared_are_refused(output, changes, key):
    folder = made(output, "sumlora_all", 2, **changes)
    first = output / "synthetic/tiny/peso/v1/seed_1/stage_2"
    refused(output, parts=[f"{first} and {folder} differ in {key}", "--mix"])
    (group,) = chosen(output, mix=True)
    assert len(group.variants) == 4
    assert f"differ in {key}" in group.mixed
    assert chosen(output, "method=peso,single")[0].mixed == ""


def test_stage_1_may_have_been_scored_otherwise(tmp_path):
    made(tmp_path, "base", 1, beams=50)
    made(tmp_path, "peso", 2)
    assert names(tmp_path) == ["peso"]


def test_a_protocol_can_be_chosen_where_a_stage_has_several(tmp_path):
    for method, value in (("peso", 0.3), ("single", 0.4)):
        folder = made(tmp_path, method, 2, 0.1, beams=10 if method == "peso" else 30)
        (folder / "evaluations").mkdir()
        (folder / "evaluations/x.json").write_text(json.dumps(figures_document(2, {2: value}, beams=50)))
    refused(tmp_path, parts=["decoding.beams"])
    (group,) = chosen(tmp_path, "decoding.beams=50")
    assert [variant.any.figures()["ndcg@10"] for variant in group.variants] == [0.4, 0.3]


def test_one_place_in_two_folders_is_told_apart_or_taken_once(tmp_path):
    made(tmp_path / "a", "peso", 2)
    made(tmp_path / "b", "peso", 2)
    assert names(tmp_path) == ["peso"]
    lineage = tmp_path / "b/synthetic/tiny/peso/v1/seed_1/stage_2/lineage.json"
    lineage.write_text(lineage.read_text().replace("peso 2 1v1", "other"))
    refused(tmp_path, parts=["the same place", tmp_path / "a", tmp_path / "b"])


# The baseline


def test_the_baseline_is_a_row_or_the_only_variant_of_a_method(tmp_path):
    made(tmp_path, "single", variant="a", words=("trainer.epochs=3",))
    assert chosen(tmp_path, baseline="single")[0].baseline == "single"
    made(tmp_path, "single", variant="b", words=("trainer.epochs=4",))
    row = "single (trainer.epochs=3)"
    assert chosen(tmp_path, baseline="single")[0].baseline == "single"
    assert chosen(tmp_path, baseline=row)[0].baseline == row
    refused(tmp_path, baseline="singel", parts=["--baseline singel", "did you mean single?"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(3000.0, "3000"), (0.5, "0.5"), (1e-5, "1e-05"), (None, "null"), (True, "true"), ([1, 2], "[1,2]"), ("a", "a")],
)
def test_values_are_shown_as_overrides_have_them(value, text):
    assert shown_value(value) == text
