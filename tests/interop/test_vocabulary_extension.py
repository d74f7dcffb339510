"""Words of a domain: which are chosen, where they are put, and how they begin."""

import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.cli import main
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.interop.pretrained import from_pretrained, save_pretrained
from bert_tf.interop.ready_model import load_tokenizer
from bert_tf.interop.vocabulary_extension import choose_words
from bert_tf.modeling.pretraining import build_pretraining_model

PIECES = ["##" + char for char in "abcdefghijklmnopqrstuvwxyz"]
WORDS = [
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"),
    *("the", "can", "##dle", "kni", *"abcdefghijklmnopqrstuvwxyz", *PIECES),
]
# candle: 1 piece saved 4 times; knife: 3 pieces instead of 1, 3 times; zoo is there
# once; the is a word already; Ω has no pieces.
TEXT = "The candle, candle candle candle. Knife knife knife. Zoo. Ω Ω\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    """A folder with a masked LM and its vocabulary."""
    folder = tmp_path_factory.mktemp("extension")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "text.txt").write_text(TEXT)
    config = dataclasses.replace(tiny_config, vocab_size=len(WORDS))
    network = build_pretraining_model(config, seed=3)
    for variable in network.weights:  # Biases begin as 0, which says nothing.
        if variable.path.endswith("predictions/output_bias"):
            variable.assign(np.linspace(-1.0, 1.0, len(WORDS)))
    save_pretrained(network, folder / "old", vocab_file=str(folder / "vocab.txt"))
    return folder


def extend(folder, name, *options, num_tokens=2):
    command = ["vocab", "extend", folder / "old", folder / name]
    command += [f"--input={folder}/text.txt", "--num_processes=1"]
    command += [f"--num_tokens={num_tokens}", *options]
    return main([str(word) for word in command])


def tokens_of(folder, name):
    return (folder / name / "vocab.txt").read_text().splitlines()


def masked_lm_logits(path, ids):
    network = from_pretrained(path, "pretraining", new=("cls/seq_relationship/*",))
    positions = tf.range(len(ids))[None]
    inputs = {"input_ids": tf.constant([ids]), "masked_lm_positions": positions}
    return network(inputs)["masked_lm_logits"].numpy()[0]


def tables(path):
    network = from_pretrained(path, "pretraining")
    wanted = ("word_embeddings", "predictions/output_bias")
    return [v.numpy() for v in network.weights if v.path.endswith(wanted)]


def test_words_are_chosen_by_the_pieces_that_they_save(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = WordPieceTokenizer(str(tmp_path / "vocab.txt"))
    counts = Counter({"candle": 4, "knife": 3, "zoo": 1, "the": 9, "ω": 2})
    found = choose_words(counts, tokenizer, 5)
    assert [(new.word, new.saved) for new in found] == [("knife", 6), ("candle", 4)]
    assert [tokenizer.inverse_vocab[i] for i in found[0].pieces] == [
        *("kni", "##f", "##e"),
    ]


def test_appended_words_leave_the_logits_of_the_others_as_they_are(model, capsys):
    assert extend(model, "appended") == 0
    assert tokens_of(model, "appended") == [*WORDS, "knife", "candle"]
    assert "added 2 words behind all others, such as knife, candle" in (
        capsys.readouterr().out
    )
    ids = [3, 7, WORDS.index("z"), 5, WORDS.index("##dle"), 4]
    old, new = (masked_lm_logits(model / name, ids) for name in ("old", "appended"))
    assert new.shape[1] == len(WORDS) + 2
    np.testing.assert_allclose(new[:, : len(WORDS)], old, atol=1e-6)


def test_new_rows_are_the_means_of_their_old_pieces(model):
    assert extend(model, "means", "--overwrite") == 0
    pieces = [[WORDS.index(p) for p in ("kni", "##f", "##e")]]
    pieces += [[WORDS.index(p) for p in ("can", "##dle")]]
    for old, new in zip(tables(model / "old"), tables(model / "means"), strict=True):
        np.testing.assert_array_equal(new[: len(WORDS)], old)
        expected = [old[ids].mean(axis=0) for ids in pieces]
        np.testing.assert_allclose(new[len(WORDS) :], expected, rtol=1e-6)


def test_words_are_read_from_the_files_that_extract_reads(model, capsys):
    """Three formats, each with a third of the text."""
    folder = model / "formats"
    folder.mkdir()
    *first, last = TEXT.split(" ", 7)
    (folder / "a.txt").write_text(" ".join(first[:3]))
    (folder / "b.jsonl").write_text(json.dumps({"body": " ".join(first[3:])}) + "\n")
    (folder / "c.csv").write_text(f'body\n"{last}"\n')
    assert extend(model, "one") == 0
    expected = capsys.readouterr().out.splitlines()
    words = (f"--input={folder}", "--text_field=body")
    assert extend(model, "formats-extended", *words) == 0
    found = capsys.readouterr().out.splitlines()
    assert tokens_of(model, "formats-extended") == tokens_of(model, "one")
    # Numbers of tokens of the text, before and after.
    [before] = [line for line in expected if "tokens of the text" in line]
    assert before in found


def test_words_may_replace_unused_ones(model):
    assert extend(model, "unused", "--into_unused") == 0
    expected = list(WORDS)
    expected[1], expected[6] = "knife", "candle"
    assert tokens_of(model, "unused") == expected
    table, old = tables(model / "unused")[0], tables(model / "old")[0]
    pieces = [WORDS.index(p) for p in ("can", "##dle")]
    np.testing.assert_allclose(table[6], old[pieces].mean(axis=0), rtol=1e-6)
    kept = [n for n in range(len(WORDS)) if n not in (1, 6)]
    np.testing.assert_array_equal(table[kept], old[kept])


def test_the_new_tokenizer_knows_the_words(model):
    assert extend(model, "known") == 0
    tokenizer = load_tokenizer(model / "known")
    assert tokenizer.tokenize("The knife and candle") == [
        *("the", "knife", "a", "##n", "##d", "candle"),
    ]
    settings = json.loads((model / "known" / "config.json").read_text())
    assert settings["vocab_size"] == len(WORDS) + 2


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num_tokens=0"], "`num_tokens` must be"),
        (["--input=missing.txt"], "missing.txt does not exist"),
        (["--into_unused", "--num_tokens=3"], ""),
        (["--vocab_file=missing.txt"], "`vocab_file` must be a file"),
    ],
)
def test_wrong_options_end_with_one_line_and_leave_nothing(
    model, options, message, capsys
):
    if not message:  # Three words are to be placed, in two slots.
        (model / "more.txt").write_text(TEXT + "Zoo.\n")
        options = [*options, f"--input={model}/more.txt"]
        message = "`num_tokens` must be at most 2, the [unusedN] of the vocabulary"
    capsys.readouterr()
    assert extend(model, "refused", *options) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (model / "refused").exists()


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size"])
def test_a_config_of_another_model_is_refused_without_advice_on_other_options(
    model, tmp_path, key, capsys
):
    shutil.copytree(model / "old", tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {key: 2 * values[key]}))
    command = ["vocab", "extend", str(tmp_path / "other"), str(tmp_path / "new")]
    assert main([*command, f"--input={model}/text.txt", "--num_tokens=2"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "Use the config file that belongs to these weights." in error
    assert "--bert_config_file" not in error


@pytest.mark.parametrize("content", [b"", b"the the\n", b"caf\xe9 caf\xe9\n"])
def test_a_text_without_new_words_is_refused(model, content, capsys):
    path = model / "bad.txt"
    path.write_bytes(content)
    assert extend(model, "refused", f"--input={path}") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert str(path) in error and not (model / "refused").exists()
