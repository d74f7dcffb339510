import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import read_documents

from bert_tf.config.text import VocabConfig
from bert_tf.data.commands.vocab import (
    FIRST_TOKENS,
    Alphabet,
    count_characters,
    make_vocabulary,
    train_vocabulary,
)
from bert_tf.data.text.tokenization import CASED, UNCASED, WordPieceTokenizer
from bert_tf.data.text.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def speeches(real_data, tmp_path_factory):
    """Google's format: all speeches but the last thirty, and these."""
    folder = tmp_path_factory.mktemp("speeches")
    paths = sorted((real_data / "text" / "sotu").glob("*.txt"))
    for name, chosen in (("train", paths[:-30]), ("test", paths[-30:])):
        documents = read_documents(list(map(str, chosen)), "text")
        text = "\n\n".join("\n".join(document) for document in documents)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def make(folder, text, **options):
    options = {"vocab_size": 4000, "num_processes": 1} | options
    config = VocabConfig(input=str(text), output_dir=str(folder), **options)
    counts = make_vocabulary(config)
    tokens = load_vocabulary(str(folder / "vocab.txt"))
    assert counts["tokens"] == len(tokens)
    return config, tokens


def test_layout_is_that_of_the_published_vocabularies(speeches, real_data, tmp_path):
    _, tokens = make(tmp_path / "vocab", speeches / "train.txt")
    published = load_vocabulary(str(real_data / "vocab.txt"))
    assert tokens[:104] == published[:104] == list(FIRST_TOKENS)
    assert len(tokens) == 4000
    alphabet = [token for token in tokens[104:] if len(token) == 1]
    assert tokens[104 : 104 + len(alphabet)] == sorted(alphabet)
    assert "##ing" in tokens
    assert "government" in tokens


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_training_text_has_no_unknown_words(speeches, tmp_path, do_lower_case):
    text = speeches / "train.txt"
    make(tmp_path / "vocab", text, do_lower_case=do_lower_case)
    file = str(tmp_path / "vocab" / "vocab.txt")
    tokenizer = WordPieceTokenizer(file, UNCASED if do_lower_case else CASED)
    [ids] = tokenizer.encode([text.read_text(encoding="utf-8")])
    assert tokenizer.special.unk not in ids


@pytest.mark.slow
def test_small_vocabulary_of_its_own_serves_nearly_as_well(
    speeches, real_data, tmp_path
):
    """8,000 tokens of the same kind of text cost a tenth more than 30,522 of any."""
    make(tmp_path / "vocab", speeches / "train.txt", vocab_size=8000)
    text = (speeches / "test.txt").read_text(encoding="utf-8")
    lengths = [
        len(WordPieceTokenizer(str(file)).encode([text])[0])
        for file in (tmp_path / "vocab" / "vocab.txt", real_data / "vocab.txt")
    ]
    assert lengths[0] < 1.15 * lengths[1]


@pytest.mark.slow
def test_vocabulary_is_the_same_every_time(speeches, tmp_path):
    """In processes with other hash seeds, threads and numbers of workers too."""
    config, tokens = make(tmp_path / "one", speeches / "train.txt")
    for number, threads in enumerate(("1", "2")):
        folder = tmp_path / f"again_{number}"
        options = dataclasses.replace(
            config, output_dir=str(folder), num_processes=1 + number
        )
        command = [sys.executable, "-m", "bert_tf", "data", "vocab"]
        command += [
            f"--{field.name}={getattr(options, field.name)}"
            for field in dataclasses.fields(options)
        ]
        environment = dict(os.environ, RAYON_NUM_THREADS=threads)
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
        assert load_vocabulary(str(folder / "vocab.txt")) == tokens


WORDS = st.lists(st.text("abcdeé北", min_size=1, max_size=12), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(WORDS)
def test_any_words_can_be_cut_into_pieces(words):
    line = " ".join(words)
    tokens = train_vocabulary([line], count_characters(line), 200, 2, 1000)
    assert len(tokens) == len(set(tokens)) <= 200
    known = set(tokens)
    for word in words:
        assert word[0] in known
        assert all(f"##{char}" in known for char in word[1:])


def test_rare_characters_are_left_out():
    line = "aab aab aac ddd"
    alphabet = count_characters(line)
    assert alphabet == Alphabet({"a": 6, "b": 2, "c": 1, "d": 3}, set("abcd"))
    tokens = train_vocabulary([line], alphabet, 200, 2, 2)
    assert [token for token in tokens if len(token) == 1] == ["a", "d"]
    assert not any("b" in token or "c" in token for token in tokens[104:])


def test_vocabulary_is_made_once(speeches, tmp_path):
    config, _ = make(tmp_path / "vocab", speeches / "test.txt")
    file = Path(config.output_dir, "vocab.txt")
    before = file.stat().st_mtime_ns
    make_vocabulary(config)
    assert file.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="must not hold earlier output"):
        make_vocabulary(dataclasses.replace(config, vocab_size=500))


@pytest.mark.parametrize("size", [5, 104])
def test_vocabulary_without_room_for_words_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=r"`vocab_size` must be greater than 104"):
        make(tmp_path / "vocab", tmp_path / "none.txt", vocab_size=size)


def test_text_without_words_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="`input` must hold text"):
        make(tmp_path / "vocab", tmp_path / "a.txt")
    assert not (tmp_path / "vocab").exists()


@pytest.mark.parametrize("strips, expected", [(None, "и"), (False, "й"), (True, "и")])
def test_accents_are_kept_on_demand(tmp_path, strips, expected):
    text = tmp_path / "text.txt"
    text.write_text("Великий край\n\nмалий край\n" * 3, encoding="utf-8")
    options = {} if strips is None else {"strip_accents": strips}
    _, tokens = make(tmp_path / "vocab", text, vocab_size=300, **options)
    assert f"кра{expected}" in tokens
