import pytest
from populations import random_block
from worlds import COMPACT, INSTRUCT, random_catalog, small_llama, vocabulary_of

from peso_cli.backbones.prompts import render
from peso_cli.data.examples import examples
from peso_cli.training.estimate import describe, training_memory
from peso_cli.training.layouts import Packed
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import shared

CATALOG = random_catalog(30, (3, 4, 5))


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda t: t.name)
def test_it_says_what_there_is(template):
    vocabulary = vocabulary_of(CATALOG, template)
    found = examples(random_block(20), "train", 5)
    packer = Packer((shared(found),), Packed(render(template, vocabulary, CATALOG)), 200)
    said = describe(packer, small_llama(vocabulary))
    assert f"{len(found)} examples as {len(shared(found))} sequences" in said
    assert f"{packer.lengths.min()} to {packer.lengths.max()} tokens" in said
    assert f"filled to {packer.fill:.0%}" in said


def test_memory_grows_with_tokens_and_with_what_trains():
    model = small_llama(vocabulary_of(CATALOG))
    size = sum(p.numel() * 4 for p in model.parameters())
    whole = training_memory(model, 100)
    assert training_memory(model, 200) > whole
    assert whole - training_memory(model.requires_grad_(False), 100) == 4 * size
