import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast
from worlds import catalog_of, random_catalog, sid_texts

from peso_cli.backbones.vocabulary import extended_vocabulary, word_vocabulary
from peso_cli.errors import InputError
from peso_cli.semantic_ids.catalog import token_text

CATALOG = random_catalog(12, (3, 2, 4))
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "pick", "next", ":"]
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def tokenizer_of(words=WORDS, **special):
    """A plain word tokenizer with the given special tokens."""
    plain = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, **special)


def everything(vocabulary):
    return [vocabulary.pad, vocabulary.begin, vocabulary.end, *vocabulary.sid_ids]


def test_a_word_vocabulary_gives_every_word_and_code_an_id_of_its_own():
    vocabulary = word_vocabulary(CATALOG, "Pick next: one, then next!")
    words = vocabulary.encode("Pick next : one , then !")
    assert sorted(everything(vocabulary) + words) == list(range(vocabulary.size))
    assert vocabulary.encode("then,one") == [words[5], words[4], words[3]]
    assert vocabulary.encode("") == []


def test_a_word_vocabulary_depends_on_the_words_alone():
    one, other = (word_vocabulary(CATALOG, text) for text in ("b a c", "c  a\nb a"))
    assert one.encode("a b c") == other.encode("a b c")
    assert one.first_code.tolist() == other.first_code.tolist()


def test_codes_of_a_level_are_consecutive():
    vocabulary = word_vocabulary(CATALOG, "")
    assert vocabulary.level_sizes == (3, 2, 4)
    assert vocabulary.first_code.tolist() == [3, 6, 8]
    assert vocabulary.sid_ids == list(range(3, 12))
    assert vocabulary.size == 12
    codes = np.array([[0, 0, 0], [2, 1, 3], [1, 0, 2]], dtype=np.int32)
    assert vocabulary.sid_tokens(codes).tolist() == [[3, 6, 8], [5, 7, 11], [4, 6, 10]]


def test_one_level_is_enough():
    vocabulary = word_vocabulary(catalog_of([[0], [4]]), "")
    assert vocabulary.sid_ids == [3, 4, 5, 6, 7]


def test_a_pretrained_tokenizer_gains_just_the_codes():
    tokenizer = tokenizer_of(**SPECIAL)
    vocabulary = extended_vocabulary(CATALOG, tokenizer)
    assert (vocabulary.pad, vocabulary.begin, vocabulary.end) == (0, 1, 2)
    assert vocabulary.size == len(tokenizer) == len(WORDS) + 9
    texts = [token_text(level, code) for level, size in enumerate((3, 2, 4)) for code in range(size)]
    assert tokenizer.convert_tokens_to_ids(texts) == vocabulary.sid_ids
    assert vocabulary.encode("pick next :") == [4, 5, 6]
    for row, tokens in zip(CATALOG.codes, vocabulary.sid_tokens(CATALOG.codes), strict=True):
        assert vocabulary.encode("".join(sid_texts(row))) == tokens.tolist()


def test_what_a_tokenizer_lacks_its_end_token_stands_in_for():
    vocabulary = extended_vocabulary(CATALOG, tokenizer_of(eos_token="</s>", unk_token="<unk>"))
    assert (vocabulary.pad, vocabulary.begin, vocabulary.end) == (2, 2, 2)


def test_a_tokenizer_that_begins_texts_by_itself_begins_no_template_text():
    tokenizer = tokenizer_of(**SPECIAL)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert tokenizer.encode("pick") == [1, 4]
    assert extended_vocabulary(CATALOG, tokenizer).encode("pick") == [4]


def test_a_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(InputError, match="no end-of-text token") as caught:
        extended_vocabulary(CATALOG, tokenizer_of(unk_token="<unk>"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("taken", ["<a_0>", "<c_3>"])
def test_a_tokenizer_that_has_code_tokens_already_is_refused(taken):
    with pytest.raises(InputError, match="already has tokens") as caught:
        extended_vocabulary(CATALOG, tokenizer_of([*WORDS, taken], **SPECIAL))
    assert "\n" not in str(caught.value)


def test_the_golden_tokenizer_has_code_tokens_already(shared):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(shared / "golden" / "tiny_llama" / "tokenizer.json"), eos_token="</s>"
    )
    with pytest.raises(InputError, match="already has tokens"):
        extended_vocabulary(random_catalog(30, (8, 8, 8, 8)), tokenizer)
