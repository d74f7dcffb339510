"""tokenizer.json against our own tokenizer, string by string."""

import json
import random
import unicodedata

import pytest
from interop.tiny_bert import WORDS
from oracles import files
from tokenizers import Tokenizer

from bert_tf.data.text.tokenization import (
    CASED,
    UNCASED,
    TokenizerSettings,
    WordPieceTokenizer,
)
from bert_tf.interop.tokenizer_files import tokenizer_config, tokenizer_files

SETTINGS = [
    UNCASED,
    CASED,
    TokenizerSettings(True, False),
    TokenizerSettings(False, True),
    TokenizerSettings(tokenize_chinese_chars=False),
]
HARD = [
    "a\ue000b \uf8ff \U000f0000c",
    "a\u0378b \U0001fbff \u0df9",
    "ΟΔΟΣ, ΟΔΟΣ. Σ ΣΑΣ ΟΔΟΣ\u00adΑ ΑΣ'Α ΑΣ: ΣΣ ΑΣΣ",
    "a\x00b\x07d\x0be\x1cf\x7fk\x85l\ufffdm",
    "a\u00adb\u200bc\ufeffh\u061ci\u180ej\U000e0073k \U00013438",
    "cafe\u0301 a\u0301\u0323b x\u20dd\u0301 The\U00011833 \u0898 \u07fd",
    "我在北京mat 豈\U0002b820\U0002b8ff\U0002f800 \U00030000",
    "İstanbul ısı ẞ ﬁ ǅ",
    "x\U000111cfy \u061d \u2e52 \U00010f55",
    "x" * 200 + " " + "x" * 201 + " " + "Σ" * 150,
    "a\u2028b\u2029c\u3000d",
]


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def pair(request):
    """The tokenizer of the library `tokenizers`, and ours."""
    vocab_file = str(files.require(files.VOCAB_FILE))
    written = tokenizer_files(vocab_file, request.param, 512)
    theirs = Tokenizer.from_str(written["tokenizer.json"])
    return theirs, WordPieceTokenizer(vocab_file, request.param)


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", HARD)
def test_hard_strings_have_our_ids(pair, text):
    theirs, ours = pair
    assert ids(theirs, text) == ours.encode([text])[0]


def test_characters_of_every_kind_have_our_ids(pair):
    theirs, ours = pair
    kinds = {}
    for code in range(0x110000):
        kinds.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    del kinds["Cs"]
    rng = random.Random(7)
    for chars in kinds.values():
        for char in rng.sample(chars, min(20, len(chars))):
            text = f"The{char}ΑΣ{char} {char}cat {char}"
            assert ids(theirs, text) == ours.encode([text])[0], hex(ord(char))


def test_special_tokens_in_a_text_are_special_there(pair):
    theirs, ours = pair
    assert ids(theirs, "[MASK]") == [ours.special.mask]


@pytest.mark.parametrize(
    "settings, expected",
    [
        (UNCASED, (True, None, True)),
        (CASED, (False, None, True)),
        (TokenizerSettings(True, False), (True, False, True)),
        (TokenizerSettings(False, False, False), (False, None, False)),
    ],
)
def test_the_settings_are_written_in_the_words_of_transformers(settings, expected):
    config = json.loads(tokenizer_config(settings, 16))
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    assert tuple(config[name] for name in names) == expected


def test_the_class_is_one_that_reads_the_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS))
    written = tokenizer_files(str(path), UNCASED, 16)
    config = json.loads(written["tokenizer_config.json"])
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "token_type_ids" in config["model_input_names"]
