import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
from built_worlds import seal, write_stages
from commands.running import files_of
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_ids.quantized import LetterEmbedding, Lines, PlainQuantizer, items_with

from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids.catalog import read_catalog
from peso_cli.semantic_ids.item_sources import items_of_built, items_of_file
from peso_cli.semantic_ids.of_built import bring_into_being, extend_stored, settings_of
from peso_cli.semantic_ids.quality import quality
from peso_cli.semantic_ids.residual import encode
from peso_cli.semantic_ids.settings import Tokenizer
from peso_cli.semantic_ids.sharing import shares
from peso_cli.semantic_ids.store import read_stored
from peso_cli.semantic_ids.tokenize import tokenize

KINDS = ("none", "sinkhorn", "reassign", "extra_level")
WORDS = ("mug", "gum", "pen", "open", "lamp", "palm", "desk", "tape", "pate", "clip", "ink", "kin", "note", "tone")
TEXTS = "{title}. {brand}"

letters = st.text("abcdef", max_size=4)


def tokenizer_with(**settings):
    return Tokenizer(
        **{"name": "toy", "text": TEXTS, "fit_on": "stage_1", "resolve": "reassign", "seed": 1, **settings}
    )


def run(items, tokenizer, quantizer=None):
    return tokenize(items, LetterEmbedding(), quantizer or PlainQuantizer(), tokenizer, Lines())


def texts_of(count, seed):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdef"), rng.integers(1, 5))) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@given(later=st.lists(letters, min_size=4, max_size=4), other=st.lists(letters, min_size=4, max_size=4))
@settings(max_examples=10, deadline=None)
def test_texts_of_later_stages_change_no_semantic_id_of_stage_1(kind, later, other):
    stages = [1] * 8 + [2] * 4
    one = run(items_with([*WORDS[:8], *later], stages), tokenizer_with(resolve=kind))
    two = run(items_with([*WORDS[:8], *other], stages), tokenizer_with(resolve=kind))
    alone = run(items_with(WORDS[:8]), tokenizer_with(resolve=kind))
    np.testing.assert_array_equal(one.codes[:8], two.codes[:8])
    np.testing.assert_array_equal(one.codes[:8], alone.codes)
    assert one.level_sizes == two.level_sizes == alone.level_sizes


def test_with_all_items_later_texts_do_shape_the_codebooks():
    stages = [1] * 8 + [2] * 6
    one = run(items_with(WORDS, stages), tokenizer_with(fit_on="all", seed=3))
    two = run(items_with([*WORDS[:8], *texts_of(6, 0)], stages), tokenizer_with(fit_on="all", seed=3))
    centers = [made.codebooks.centers[0] for made in (one, two)]
    assert not np.array_equal(*centers)
    shuffled = run(items_with(WORDS, [1] * 14), tokenizer_with(fit_on="all", seed=3))
    np.testing.assert_array_equal(one.codes, shuffled.codes)


def test_the_order_of_the_stages_among_the_items_does_not_matter():
    stages = np.array([1] * 8 + [2] * 6, np.int32)
    order = np.random.default_rng(0).permutation(14)
    order = np.concatenate([order[order >= 8], order[order < 8]])
    straight = run(items_with(WORDS, stages), tokenizer_with(resolve="none"))
    mixed = run(items_with([WORDS[n] for n in order], stages[order]), tokenizer_with(resolve="none"))
    books = mixed.codebooks
    vectors = LetterEmbedding().embed(items_with([WORDS[n] for n in order]), None)
    np.testing.assert_array_equal(mixed.codes, encode(books, vectors))
    assert straight.report.items == mixed.report.items == 14


def test_reassign_tells_texts_apart_that_the_encoder_takes_for_the_same():
    made = run(items_with(["mug", "gum", "mug", *WORDS[2:]]), tokenizer_with())
    assert (made.codes[0] == made.codes[2]).all()
    assert (made.codes[0] != made.codes[1]).any()
    assert made.report.before.beyond_text > 0
    assert made.report.after.beyond_text == 0
    assert made.report.after.all == pytest.approx(2 / 15)
    untouched = run(items_with(["mug", "gum", "mug", *WORDS[2:]]), tokenizer_with(resolve="none"))
    assert untouched.report.before == untouched.report.after == made.report.before


def test_the_report_is_the_quality_of_what_is_given():
    brands = tuple("xy"[n % 2] for n in range(14))
    items = items_with(WORDS, [1] * 10 + [2] * 4, brands=brands)
    made = run(items, tokenizer_with(resolve="extra_level"))
    assert not shares(made.codes).any()
    again = quality(made.codes, made.level_sizes, LetterEmbedding().embed(items, None), made.codebooks, brands)
    assert made.report.reconstruction_error == again.reconstruction_error
    assert made.report.brand == again.brand
    assert made.report.level_sizes == made.level_sizes == (4, 4, 16)


# A built dataset -------------------------------------------------------------------------------------------------


def stages_of(count):
    """The events of some stages, each with new items of two users."""
    bounds = [0, 8, 11, 14]
    return [{"u": [f"i{n}" for n in range(bounds[t], bounds[t + 1])], "v": [f"i{bounds[t]}"]} for t in range(count)]


TITLES = {
    f"i{n}": {"title": word, "brand": "xyz"[n % 3], "categories": f"Shop, {'ab'[n % 2]}"}
    for n, word in enumerate(WORDS)
}
PARTS = {
    "embedding": {"_target_": "semantic_ids.quantized.LetterEmbedding", "name": "letters", "width": 6},
    "quantizer": {"_target_": "semantic_ids.quantized.PlainQuantizer", "name": "plain", "levels": 2, "codes": 4},
}


def make(root, **changes):
    tokenizer = tokenizer_with(**changes)
    plain = {"tokenizer": dataclasses.asdict(tokenizer), **PARTS}
    return bring_into_being(root, settings_of(plain), LetterEmbedding(), PlainQuantizer(), tokenizer, Lines())


def world(root, stages=3, titles=TITLES, built=None):
    return write_stages(root, stages_of(stages), titles, built)


@pytest.mark.parametrize("kind", KINDS)
def test_an_appended_stage_gets_what_it_would_have_got_and_changes_nothing(tmp_path, kind):
    whole = make(world(tmp_path / "whole"), resolve=kind)
    root = world(tmp_path / "grown", 2)
    first = make(root, resolve=kind)
    before = files_of(first.folder)
    shutil.rmtree(root)
    shutil.copytree(world(tmp_path / "more"), root)
    write_back(first.folder, before)
    extended = extend_stored(root, first.folder, Lines())
    assert (whole.did, first.did, extended.did) == ("made", "made", "extended")
    after = files_of(first.folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"stage_3.parquet", "stage_3.json"}
    assert after["stage_3.parquet"] == (whole.folder / "stage_3.parquet").read_bytes()
    assert read_stored(whole.folder).codes.tolist() == read_stored(first.folder).codes.tolist()
    assert {**whole.figures["quality"], "before": None} == extended.figures["quality"]
    assert make(root, resolve=kind).did == "reused"


def write_back(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_the_same_settings_give_the_same_bytes_and_are_reused(tmp_path):
    one, two = make(world(tmp_path / "one")), make(world(tmp_path / "two"))
    assert files_of(one.folder) == files_of(two.folder)
    before = files_of(one.folder)
    again = make(tmp_path / "one")
    assert (again.did, again.figures) == ("reused", json.loads(json.dumps(one.figures)))
    assert files_of(one.folder) == before


@pytest.mark.parametrize("changes", [{"resolve": "none"}, {"seed": 2}, {"text": "{title}"}, {"fit_on": "all"}])
def test_a_name_that_is_taken_by_other_settings_is_refused(tmp_path, changes):
    folder = make(world(tmp_path / "one")).folder
    before = files_of(folder)
    with pytest.raises(
        InputError, match=rf"toy: was made with tokenizer\.{next(iter(changes))}=.*tokenizer\.name=NAME"
    ):
        make(tmp_path / "one", **changes)
    assert files_of(folder) == before
    assert make(tmp_path / "one", name="other", **changes).folder.name == "other"


def test_semantic_ids_of_another_build_are_refused(tmp_path):
    root = world(tmp_path / "one")
    folder = make(root).folder
    frame = pl.read_parquet(root / "stage_1" / "items.parquet")
    frame.with_columns(pl.lit("new").alias("title")).write_parquet(root / "stage_1" / "items.parquet")
    with pytest.raises(RunError, match=r"stage_1/items\.parquet: changed since stage 1 was built"):
        make(root, name="other")
    seal(root / "stage_1", 1)
    manifest = root / "stage_1" / "stage.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(InputError, match="was made for another build"):
        make(root)
    assert make(root, name="other").did == "made"
    assert folder.is_dir()


def test_items_of_a_built_dataset_come_stage_by_stage_with_histories_of_the_first(tmp_path):
    root, lines = world(tmp_path / "one", titles={**TITLES, "i1": {}}), Lines()
    items = items_of_built(root, TEXTS, lines)
    assert items.ids == tuple(f"i{n}" for n in range(14))
    assert items.texts[:2] == ("mug. x", "")
    assert items.brands[:3] == ("x", "", "z")
    assert items.categories[:3] == ("a", "", "a")
    assert items.stage.tolist() == [1] * 8 + [2] * 3 + [3] * 3
    assert [history.tolist() for history in items.histories()] == [list(range(6)), [0]]
    assert "1 without text" in lines.lines[0]


def test_a_folder_that_was_never_built_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no finished build"):
        items_of_built(tmp_path, TEXTS, Lines())


def test_items_of_a_file_are_all_of_stage_1(tmp_path):
    path = tmp_path / "toy.item.json"
    path.write_text(json.dumps({"a": {"title": "Mug", "brand": "B"}, "b": {"title": None}}))
    items = items_of_file(path, TEXTS, Lines())
    assert (items.ids, items.texts, items.brands) == (("a", "b"), ("Mug. B", ""), ("B", ""))
    assert items.stage.tolist() == [1, 1]
    assert items.histories() == ()
    path.write_text("{}")
    with pytest.raises(InputError, match="holds no item"):
        items_of_file(path, TEXTS, Lines())


# The command -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Chosen:
    """As much of a composed configuration as the command looks at."""

    config: object
    plain: dict


def chosen(dataset, **changes):
    from types import SimpleNamespace

    tokenizer = tokenizer_with(**changes)
    config = SimpleNamespace(
        dataset=dataset, tokenizer=tokenizer, embedding=LetterEmbedding(), quantizer=PlainQuantizer()
    )
    return Chosen(config, {"tokenizer": dataclasses.asdict(tokenizer), **PARTS})


def test_the_command_writes_an_index_for_a_file_and_refuses_a_place_that_is_taken(tmp_path, capsys):
    from peso_cli.commands.tokenize import tokenize as command

    source, output = tmp_path / "toy.item.json", tmp_path / "toy.index.json"
    source.write_text(json.dumps(TITLES))
    command(chosen(None), source, output, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["quality"]["after"]["beyond_text"] == 0
    assert read_catalog(output).items == tuple(TITLES)
    content = output.read_bytes()
    with pytest.raises(InputError, match="is there already"):
        command(chosen(None), source, output, as_json=True)
    assert output.read_bytes() == content
    with pytest.raises(InputError, match="go together"):
        command(chosen(None), source, None, as_json=True)


def test_the_command_says_whether_it_made_or_found_semantic_ids(tmp_path, capsys):
    from built_worlds import built

    from peso_cli.commands.tokenize import tokenize as command
    from peso_cli.data.open import open_dataset

    root = world(tmp_path / "one")
    for did in ("made", "there already, with the same settings"):
        command(chosen(built(root)), None, None, as_json=False)
        out = capsys.readouterr().out
        assert f"semantic_ids/toy: {did}" in " ".join(out.split())
        assert "items that share one, in the end" in out
    dataset = open_dataset(built(root))
    assert dataset.catalog.codes.tolist() == read_stored(root / "semantic_ids" / "toy").codes.tolist()
    assert dataset.catalog.level_sizes == (4, 4)
