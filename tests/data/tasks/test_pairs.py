"""Pairs of texts from tables."""

import json

import numpy as np
import pytest

from bert_tf.data.tasks.pairs import (
    PairColumns,
    encode_pairs,
    find_columns,
    read_pairs,
)
from bert_tf.data.text.tokenization import WordPieceTokenizer


def write(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    "header, given, expected",
    [
        ("anchor\tpositive", PairColumns(), ["anchor", "positive"]),
        (
            "Negative\tid\tPositive\tAnchor",
            PairColumns(),
            ["Anchor", "Positive", "Negative"],
        ),
        ("question\tpassage\tlabel", PairColumns(), ["question", "passage"]),
        ("a\tb\tc", PairColumns("c", "a", "b"), ["c", "a", "b"]),
    ],
)
def test_columns_are_found_by_names(tmp_path, header, given, expected):
    assert find_columns(write(tmp_path, "x.tsv", header), given) == expected


@pytest.mark.parametrize(
    "header, given, message",
    [
        ("one text\tanother text", PairColumns(), "columns anchor and positive"),
        ("text", PairColumns(), "columns anchor and positive"),
        ("a\tb", PairColumns("a", "x"), "there must be a column 'x'"),
        ("a\tb", PairColumns("a", "a"), "must be different columns"),
    ],
)
def test_other_columns_are_refused_with_those_of_the_file(
    tmp_path, header, given, message
):
    with pytest.raises(ValueError, match=f"line 1: .*{message}"):
        find_columns(write(tmp_path, "x.tsv", header), given)


def test_pairs_are_read_from_tabs_and_from_json_alike(tmp_path):
    pairs = [["a fine film", "a good one"], ["it rains", "bad weather"]]
    tabs = write(tmp_path, "x.tsv", "anchor\tpositive", *map("\t".join, pairs))
    objects = [json.dumps({"positive": b, "anchor": a}) for a, b in pairs]
    lines = write(tmp_path, "x.jsonl", *objects)
    for path in (tabs, lines):
        assert read_pairs(path, ["anchor", "positive"]) == pairs


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"anchor": "a", "positive": " "}', "line 2: 'positive' must be text"),
        ('{"anchor": "a", "positive": null}', "line 2: 'positive' must be text"),
        ('{"anchor": NaN, "positive": "b"}', "line 2: 'anchor' must be text"),
        ('{"anchor": "a"}', "line 2: there must be a column 'positive'"),
    ],
)
def test_a_row_without_its_texts_is_refused_by_line(tmp_path, line, message):
    path = write(tmp_path, "x.jsonl", '{"anchor": "a", "positive": "b"}', line)
    with pytest.raises(ValueError, match=message):
        read_pairs(path, ["anchor", "positive"])


def test_a_file_without_pairs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="x.tsv: there are no pairs"):
        read_pairs(write(tmp_path, "x.tsv", "anchor\tpositive"), ["anchor", "positive"])


def test_texts_follow_one_another_and_cut_ones_are_counted(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    tokenizer = WordPieceTokenizer(write(tmp_path, "vocab.txt", *words))
    sequences, [note] = encode_pairs([["a", "b b"], ["b", "a"]], tokenizer, 4)
    assert sequences.input_ids.tolist() == [2, 5, 3, 2, 6, 6, 3, 2, 6, 3, 2, 5, 3]
    np.testing.assert_array_equal(sequences.lengths, [3, 4, 3, 3])
    assert note.startswith("1 of 4 texts have max_seq_length=4 tokens or more")
