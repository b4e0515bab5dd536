from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from worlds import COMPACT, INSTRUCT, catalog_of, random_catalog, vocabulary_of

from peso_cli.backbones.prompts import render
from peso_cli.config.schema import PromptTemplate
from peso_cli.errors import InputError

CATALOG = random_catalog(12, (3, 2, 4))
SHIPPED = sorted((Path(__file__).resolve().parents[2] / "conf" / "prompt").glob("*.yaml"))


def rendered(template, catalog=CATALOG):
    vocabulary = vocabulary_of(catalog, template)
    return render(template, vocabulary, catalog), vocabulary


def history(*items):
    return np.array(items, dtype=np.int32)


def test_a_compact_prompt_is_the_begin_token_and_the_codes():
    prompt, vocabulary = rendered(COMPACT)
    sids = vocabulary.sid_tokens(CATALOG.codes)
    assert prompt.tokens(history(4, 0, 4)).tolist() == [1, *sids[4], *sids[0], *sids[4]]
    assert prompt.tokens(history()).tolist() == [1]
    assert prompt.answers.tolist() == sids.tolist()
    assert (prompt.end, prompt.pad) == (vocabulary.end, vocabulary.pad)
    assert prompt.chains


def test_an_instruction_is_written_around_the_history():
    prompt, vocabulary = rendered(INSTRUCT)
    sids = vocabulary.sid_tokens(CATALOG.codes)
    (semicolon,) = vocabulary.encode(";")
    words = vocabulary.encode("Picked so far :")
    by_hand = [1, *words, *sids[7], semicolon, *sids[2], semicolon, *vocabulary.encode("Next :")]
    assert prompt.tokens(history(7, 2)).tolist() == by_hand
    assert prompt.tokens(history()).tolist() == [1, *words, *vocabulary.encode("Next :")]
    assert prompt.answers.tolist() == sids.tolist()
    assert not prompt.chains


def test_special_tokens_may_stand_anywhere():
    prompt, vocabulary = rendered(PromptTemplate("odd", "a {bos}b{end}", "{end}{sid}{bos} x", "{end} y{bos}", 5))
    a, b, x, y = (vocabulary.encode(word)[0] for word in "abxy")
    sids = vocabulary.sid_tokens(CATALOG.codes)
    assert prompt.tokens(history(3)).tolist() == [a, 1, b, 2, 2, *sids[3], 1, x, 2, y, 1]


@pytest.mark.parametrize(
    ("template", "chains"),
    [
        (COMPACT, True),
        (replace(COMPACT, head="{bos} go on :"), True),
        (replace(COMPACT, item="{sid} "), True),  # a word vocabulary has no token for spaces
        (replace(COMPACT, item="{sid};"), False),
        (replace(COMPACT, tail=" :"), False),
    ],
)
def test_a_prompt_chains_if_an_answer_looks_like_the_next_item(template, chains):
    prompt, _ = rendered(template)
    assert prompt.chains is chains
    if chains:
        longer, shorter = prompt.tokens(history(1, 2)), prompt.tokens(history(1))
        assert longer.tolist() == [*shorter, *prompt.answers[2]]


def test_items_that_share_a_semantic_id_read_the_same():
    prompt, _ = rendered(INSTRUCT, catalog_of([[0, 1], [1, 0], [0, 1]]))
    assert prompt.items[0].tolist() == prompt.items[2].tolist() != prompt.items[1].tolist()


@pytest.mark.parametrize("item", ["", "item", "{sid}{sid}", "{ sid }"])
def test_an_item_part_that_does_not_hold_one_sid_is_refused(item):
    with pytest.raises(InputError, match=r"^prompt\.item=.*just once") as caught:
        render(replace(COMPACT, item=item), vocabulary_of(CATALOG), CATALOG)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", ["", "  \n"])
def test_a_head_without_tokens_is_refused(head):
    with pytest.raises(InputError, match=r"^prompt\.head is empty") as caught:
        rendered(replace(COMPACT, head=head))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_templates_render(path):
    template = PromptTemplate(**OmegaConf.to_container(OmegaConf.load(path)))
    prompt, vocabulary = rendered(template)
    assert template.name == path.stem
    assert prompt.head[0] == vocabulary.begin
    assert prompt.chains is (path.stem == "compact")
    tokens = prompt.tokens(history(3, 5))
    assert tokens.max() < vocabulary.size
    assert len(tokens) == len(prompt.head) + 2 * prompt.items.shape[1] + len(prompt.tail)


def test_there_are_shipped_templates():
    assert {path.stem for path in SHIPPED} >= {"compact", "instruct"}
