"""Tiny vocabularies and texts for the tests of data preparation."""

import functools
import importlib.util
import shutil
import string
import sys
import types
from importlib.metadata import distribution
from pathlib import Path
from unittest import mock

import pytest
from data.shared import SPECIALS

WORDS = (
    "the cat sat on a mat dog ran to see it and was very glad run ##ning ##s un ##aff "
    "##able straße σας ος cafe naive 北 京 ▁ é"
).split()


@functools.cache
def _original_tokenization():
    """tf-models' copy of the original tokenizer, without what else it would load."""
    files = distribution("tf-models-official")
    path = files.locate_file("official/nlp/tools/tokenization.py")
    spec = importlib.util.spec_from_file_location("original_tokenization", path)
    module = importlib.util.module_from_spec(spec)
    stubs = {
        name: types.ModuleType(name)
        for name in ("tf_keras", "sentencepiece")
        if name not in sys.modules
    }
    with mock.patch.dict(sys.modules, stubs):
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def original_tokenizer():
    """Makes the original tokenizer, with the original's limit of 200 characters."""

    def make(vocab_file, do_lower_case=True):
        tokenizer = _original_tokenization().FullTokenizer(vocab_file, do_lower_case)
        tokenizer.wordpiece_tokenizer.max_input_chars_per_word = 200
        return tokenizer

    return make


@pytest.fixture(scope="session")
def vocab_file(tmp_path_factory):
    """Words, and pieces for every letter, sign and some characters beyond ASCII."""
    signs = [c for c in string.printable if not c.isspace()]
    signs += list("éßıİσςΣабвñüøœ。，—“”…€™😀👍🏽カナ한글ا")
    pieces = [*SPECIALS, *WORDS, *signs, *(f"##{sign}" for sign in signs)]
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """Forty documents of two to eight sentences, in google's format."""
    words = [word for word in WORDS if word.isascii() and not word.startswith("##")]
    documents = []
    for number in range(40):
        sentences = [
            " ".join(
                words[(number * 7 + place * 3 + k * (place + 1)) % len(words)]
                for k in range(4 + (number + place) % 9)
            )
            for place in range(2 + number % 7)
        ]
        documents.append("\n".join(sentences))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(documents) + "\n")
    return str(path)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real text and vocabulary that `make setup` fills."""
    folder = Path(__file__).parents[2] / ".data"
    if not (folder / "vocab.txt").exists():
        pytest.fail("there is no .data/vocab.txt: `make setup` fetches it")
    return folder


@pytest.fixture
def copied(tiny_records, tmp_path):
    """A copy of the tiny records that may be damaged."""
    return shutil.copytree(tiny_records, tmp_path / "copy")
