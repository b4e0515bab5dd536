"""`peso bench`: that what it compares is equal, and that it measures what it says. How fast, it says itself."""

from __future__ import annotations

import psutil
import pytest
from commands.running import SMALL, peso, refused

from peso_cli.bench import growth

QUICK = ("--users", "12", "--timed", "8", "--examples", "30", "--steps", "3", "--repeats", "2", "decoding.beams=10")


@pytest.mark.parametrize("prompt", ["compact", "instruct"])
def test_decoding_finds_the_lists_and_scores_of_plain_generate(prompt):
    document = peso("bench", "decode", *SMALL, *QUICK, f"prompt={prompt}", "--json").document
    assert set(document["equal"]) == {"peso", "peso, normalise=vocabulary_bfloat16"}
    assert document["equal"]["peso"]["compared"] == 12
    assert document["equal"]["peso"]["different"] == 0
    assert document["equal"]["peso"]["largest_score_difference"] < 1e-5
    ways = document["ways"]
    assert [len(way["seconds"]) for way in ways.values()] == [2] * 6
    assert ways["peso, normalise=level"]["gflop_per_user"] < ways["peso"]["gflop_per_user"]
    assert ways["peso"]["gflop_per_user"] < ways["plain generate, batch 1"]["gflop_per_user"]


@pytest.mark.parametrize("prompt", ["compact", "instruct"])
def test_training_has_the_loss_and_gradients_of_padded_examples(prompt):
    document = peso("bench", "train", *SMALL, *QUICK, f"prompt={prompt}", "stage=2", "--json").document
    equal, ways = document["equal"], list(document["ways"].values())
    assert equal["same_parameters"]
    assert equal["parameters"] > 4
    assert equal["relative_loss_difference"] < 1e-6
    assert equal["lowest_gradient_cosine"] > 0.99999
    assert ways[2]["tokens_per_example"] < ways[1]["tokens_per_example"]
    assert ways[2]["gflop_per_example"] < ways[1]["gflop_per_example"]
    assert document["examples"] >= 30
    assert 0 < document["fill"] <= 1


def test_penalties_are_exact_at_all_sizes_of_steps():
    document = peso("bench", "regularizer", *SMALL, *QUICK, "stage=2", "--json").document
    assert set(document["softmax_kl_error"]) == {"0.0001", "0.01", "1.0"}
    for error in document["softmax_kl_error"].values():
        assert error["value"] < 1e-6
        assert error["gradient"] < 1e-6
    assert document["ways"]["training step"]["share"] == 1
    assert {"softmax_kl", "l2", "orthogonal", "softmax_kl, module by module"} < set(document["ways"])


def test_growth_looks_at_many_users_and_items(monkeypatch):
    monkeypatch.setattr(growth, "_USERS", (5, 10))
    monkeypatch.setattr(growth, "_ITEMS", (50, 100))
    document = peso("bench", "growth", *SMALL, *QUICK, "--json").document
    assert set(document["milliseconds_per_user_by_users"]) == {"5", "10"}
    assert set(document["trie"]) == {"50", "100"}
    assert all(trie["bytes_per_item"] < 100 for trie in document["trie"].values())


@pytest.mark.long
def test_tracking_is_timed_beside_runs_without_it():
    document = peso("bench", "tracking", *SMALL, "--repeats", "1", "--json").document
    ways = document["ways"]
    assert set(ways) == {"no tracking", "offline", "online, refuses", "online, hangs"}
    assert [len(way["seconds"]) for way in ways.values()] == [1] * 4
    assert ways["no tracking"]["more"] == ways["no tracking"]["processor_more"] == 0
    assert all(way["processor_median"] > 0 for way in ways.values())
    assert psutil.Process().children() == []


@pytest.mark.parametrize("what", ["decode", "train", "regularizer"])
def test_people_get_a_table(what):
    answer = peso("bench", what, *SMALL, *QUICK, "stage=2")
    assert answer.code == 0, answer.err
    assert "medians" in answer.out
    assert {"decode": "identical", "train": "cosines", "regularizer": "float64"}[what] in answer.out


def test_builds_are_measured_in_two_sizes():
    document = peso("bench", "data", "--rows", "3000", "--json").document
    assert list(document["sizes"]) == ["3000", "6000"]
    for size in document["sizes"].values():
        assert size["seconds"] > 0
        assert size["peak_bytes"] > 2**20
        assert len(size["stages"]) == 5
    assert "3,000 rows" in peso("bench", "data", "--rows", "3000").out


def test_a_quantizer_is_measured_on_as_many_items_as_asked_for():
    small = ("quantizer.levels=2", "quantizer.codes=16", "quantizer.iterations=3", "--items", "1000")
    document = peso("bench", "tokenize", *small, "--json").document
    (way,) = document["ways"].values()
    assert (document["rows"], way["levels"], way["codes"]) == (1000, 2, 16)
    assert len(way["codes_used"]) == 2
    assert 0 < way["reconstruction_error"] < 1
    assert "rq_kmeans, 2 x 16" in peso("bench", "tokenize", *small).out


def test_wrong_input_is_refused():
    refused(peso("bench", "decoding", *SMALL), "bench decoding", "growth, data, tokenize, tracking or all")
    refused(peso("bench", "decode", *SMALL, "stage=all"), "stage=all", "one stage")
    refused(peso("bench", "decode", *SMALL, "decoding=positional"), "within the trie")
    refused(peso("bench", "train", *SMALL, "stage=9"), "stage=9")
    assert peso("bench").code == 2
    assert peso("bench", "decode", *SMALL, "--repeats", "0").code == 2
