import json
from types import SimpleNamespace

import numpy as np
import pytest
from commands.running import peso
from worlds import block_of, catalog_of

from peso_cli.artifacts import Artifact
from peso_cli.config.compose import compose
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import examples
from peso_cli.errors import InputError
from peso_cli.evaluation.figures import data_digest, flat_figures, metrics_path, protocol_of, sample_table, score
from peso_cli.evaluation.protocol import Scored
from peso_cli.evaluation.ranking import Ranking
from peso_cli.semantic_ids.catalog import Catalog

CATALOG = catalog_of([[n // 4, n % 4] for n in range(12)])
BLOCKS = {
    1: block_of({"u": ([], [0, 1, 2]), "v": ([], [3, 4, 5])}, 1),
    2: block_of({"u": ([0, 1, 2], [3, 4, 5, 6]), "w": ([], [7, 8, 9])}, 2),
}


def dataset_of(blocks=BLOCKS, catalog=CATALOG):
    return Dataset("toy", catalog, 2, blocks.__getitem__, blocks.__contains__)


def test_what_makes_figures_comparable():
    plain = protocol_of(compose([]).config)
    narrow = protocol_of(compose(["decoding.beams=10"]).config)
    assert narrow == {"constraint": "trie", "beams": 10, "normalise": "vocabulary", "top_k": 10, "window": 20}
    others = (
        "decoding.beams=20",
        "decoding=positional",
        "decoding.normalise=level",
        "decoding.top_k=9",
        "prompt.window=5",
    )
    for override in others:
        assert protocol_of(compose([override]).config) != plain
    for override in ("decoding.batch_tokens=1", "device=cpu", "evaluation.split=valid", "seed=3"):
        assert protocol_of(compose([override]).config) == plain


def test_figures_of_another_protocol_have_a_file_of_their_own(tmp_path):
    artifact, protocol = Artifact(tmp_path), {"beams": 10}
    (tmp_path / "metrics.json").write_text(json.dumps({"protocol": protocol}))
    assert metrics_path(artifact, {"beams": 10}) == tmp_path / "metrics.json"
    others = [metrics_path(artifact, {"beams": beams}) for beams in (20, 30)]
    assert len({*others}) == 2
    assert all(path.parent == tmp_path / "evaluations" for path in others)


def test_figures_depend_on_a_stages_data_and_on_who_came_before():
    here = data_digest(dataset_of(), 2)
    assert here == data_digest(dataset_of(), 2)
    other_before = {**BLOCKS, 1: block_of({"v": ([], [3, 4, 5])}, 1)}
    other_block = {**BLOCKS, 2: block_of({"u": ([0, 1, 2], [3, 4, 5, 7])}, 2)}
    digests = {data_digest(dataset_of(blocks), 2) for blocks in (BLOCKS, other_before, other_block, {2: BLOCKS[2]})}
    assert len(digests) == 4


class Counting:
    """A stand-in for a ranker: the n-th history gets the k rows that follow n; it keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def within(self, catalog):
        return self

    def rank(self, histories, k, tick, names):
        assert len(names) == len(histories)
        self.asked.append([history.tolist() for history in histories])
        tick(len(histories), len(histories))
        rows = (np.arange(len(histories))[:, None] + np.arange(k)) % len(CATALOG.sids)
        return Ranking(rows, -rows.astype(np.float32))


def config_of(top_k=10, window=2):
    return SimpleNamespace(prompt=SimpleNamespace(window=window), decoding=SimpleNamespace(top_k=top_k))


def test_scoring_asks_for_every_user_of_a_stage():
    ranker, ticks = Counting(), []
    (scored,) = score(ranker, config_of(), dataset_of(), [2], "test", lambda *tick: ticks.append(tick))
    assert ranker.asked == [[[4, 5], [7, 8]]]
    assert (scored.stage, scored.split, scored.ranks.tolist()) == (2, "test", [7, 9])
    assert ticks == [(2, 2, "users")]


def test_several_stages_are_ranked_together_and_each_gets_its_own_users():
    ranker, ticks = Counting(), []
    found = score(ranker, config_of(), dataset_of(), [2, 1], "test", lambda *tick: ticks.append(tick))
    assert ranker.asked == [[[4, 5], [7, 8], [0, 1], [3, 4]]]
    assert [(s.stage, s.rows[:, 0].tolist(), s.scores[:, 0].tolist()) for s in found] == [
        (2, [0, 1], [0, -1]),
        (1, [2, 3], [-2, -3]),
    ]
    assert [s.examples.target_items.tolist() for s in found] == [[6, 9], [2, 5]]
    assert ticks == [(4, 4, "users")]


def test_lists_are_as_long_as_asked_for():
    for top in (1, 7):
        (scored,) = score(Counting(), config_of(top), dataset_of(), [2], "test")
        assert scored.rows.shape == scored.scores.shape == (2, top)


def test_a_stage_with_nobody_to_score_is_an_error():
    blocks, ranker = {**BLOCKS, 2: block_of({"u": ([0], [1, 2])})}, Counting()
    for stages in ([2], [1, 2]):
        with pytest.raises(InputError, match="stage 2 of toy has no user with enough events to be scored"):
            score(ranker, config_of(), dataset_of(blocks), stages, "test")
    assert ranker.asked == []


def test_flat_figures_are_numbers_by_dotted_names():
    summary = {
        "users": 3,
        "recall@5": 0.5,
        "kind": "sid",
        "item": {"recall@5": 0.25, "users": 3},
        "popularity": {"recall@5": 0.1, "item": {"recall@5": 0.05}},
        "ceiling": {"recall@5": 0.9},
        "groups": {"new": {"recall@5": 1.0}},
    }
    assert flat_figures(summary) == {
        "users": 3,
        "recall@5": 0.5,
        "item.recall@5": 0.25,
        "item.users": 3,
        "popularity.recall@5": 0.1,
        "ceiling.recall@5": 0.9,
    }


def test_sample_recommendations_show_titles_where_there_are_some():
    catalog = Catalog(CATALOG.items, CATALOG.codes, {"i6": "Six", "i1": "One"})
    dataset = dataset_of(catalog=catalog)
    rows = np.array([[6, 1, -1, 2, 3, 4, 5, 7, 8, 10], [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]])
    chosen = examples(BLOCKS[2], "test", 20)
    scored = Scored(dataset, 2, "test", chosen, rows, np.zeros((2, 10), np.float32))
    columns, table = sample_table(scored, 5)
    assert columns == ["user", "latest items", "target", "recommended", "rank (0: missed)"]
    assert table == [
        ["u", "One | i2 | i3 | i4 | i5", "Six", "Six | One | i2 | i3 | i4", 1],
        ["w", "i7 | i8", "i9", "One | i2 | i3 | i4 | i5", 0],
    ]
    assert sample_table(scored, 1)[1] == table[:1]
    assert sample_table(scored, 0)[1] == []


def test_each_figure_is_kept_with_what_it_was_taken_on(trained):
    document = peso("evaluate", "stage=2", "--json", *trained.arguments()).document
    assert set(document["data"]) == {"2"}
    assert len(document["data"]["2"]) == 64


def test_each_stage_is_recommended_from_what_is_visible_by_then():
    visible = {1: np.arange(12) < 6, 2: np.ones(12, bool)}
    dataset = Dataset("toy", CATALOG, 2, BLOCKS.__getitem__, BLOCKS.__contains__, visible=visible.__getitem__)
    config = SimpleNamespace(prompt=SimpleNamespace(window=5), decoding=SimpleNamespace(top_k=3))
    asked = []

    def ranker(catalog):
        def rank(histories, k, tick, names):
            asked.append((len(catalog.sids), len(histories)))
            return Ranking(np.zeros((len(histories), k), int), np.zeros((len(histories), k)))

        return SimpleNamespace(rank=rank, within=ranker)

    (ahead,) = score(ranker(CATALOG), config, dataset, [2], "next")
    assert (ahead.stage, ahead.split, len(ahead.catalog.sids)) == (2, "next", 6)
    assert asked == [(6, 1)]
    asked.clear()
    scored = score(ranker(CATALOG), config, dataset, [2, 1], "test")
    assert [s.stage for s in scored] == [2, 1]
    assert sorted(asked) == [(6, 2), (12, 2)]
    assert [len(s.catalog.sids) for s in scored] == [12, 6]
    assert data_digest(dataset, 1) != data_digest(dataset_of(), 1)
