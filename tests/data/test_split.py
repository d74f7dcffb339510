import dataclasses
import json
from pathlib import Path

import pytest

from bert_tf.config.data import SplitDataConfig
from bert_tf.data.documents import expand_paths, read_documents
from bert_tf.data.split import belongs_to_test, split_documents


@pytest.fixture
def config(text_file, tmp_path):
    return SplitDataConfig(
        input=text_file,
        train_dir=str(tmp_path / "train"),
        test_dir=str(tmp_path / "test"),
        fraction_test_set=0.3,
    )


def documents_of(folder):
    return list(read_documents(expand_paths(str(folder)), "google"))


def test_every_document_is_on_one_side(config):
    counts = split_documents(config)
    train, test = documents_of(config.train_dir), documents_of(config.test_dir)
    assert counts == (len(train), len(test))
    every = list(read_documents([config.input], "google"))
    assert sorted(train + test) == sorted(every)
    assert [d for d in every if d in train] == train


def test_side_depends_on_text_and_seed_only(config, tmp_path):
    split_documents(config)
    documents = list(read_documents([config.input], "google"))
    (tmp_path / "turned.txt").write_text(
        "\n\n".join("\n".join(document) for document in reversed(documents))
    )
    turned = dataclasses.replace(
        config,
        input=str(tmp_path / "turned.txt"),
        train_dir=str(tmp_path / "train2"),
        test_dir=str(tmp_path / "test2"),
    )
    split_documents(turned)
    assert documents_of(turned.test_dir) == documents_of(config.test_dir)[::-1]
    other = dataclasses.replace(config, seed=1, overwrite=True)
    split_documents(other)
    assert documents_of(turned.test_dir) != documents_of(config.test_dir)[::-1]


def test_share_of_test_documents_is_the_fraction():
    chosen = [belongs_to_test([f"document {n}"], 0, 0.2) for n in range(10_000)]
    # Five standard deviations of a binomial share of 0.2 over 10,000: 0.02.
    assert abs(sum(chosen) / 10_000 - 0.2) < 0.02


TEXTS = [f"The cat {n} sat. The dog ran.\nIt was a mat." for n in range(30)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps({t: {"extract": t} for t in TEXTS})),
        ("a.json", json.dumps([{"extract": t, "id": 1} for t in TEXTS])),
        ("a.json", json.dumps(TEXTS)),
        ("a.jsonl", "\n".join(json.dumps({"extract": t}) for t in TEXTS) + "\n\n"),
    ],
    ids=["by title", "list", "strings", "lines"],
)
def test_json_documents_are_read(config, tmp_path, name, content):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(content)
    config = dataclasses.replace(
        config,
        input=str(tmp_path / "in"),
        input_format="json",
        text_field="extract",
    )
    split_documents(config)
    found = documents_of(config.train_dir) + documents_of(config.test_dir)
    expected = [
        [f"The cat {n} sat.", "The dog ran.", "It was a mat."] for n in range(30)
    ]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", r"a\.json: not JSON"),
        ("a.json", "5", r"a\.json: it must hold a JSON list or object"),
        (
            "a.json",
            '{"Cat": {"body": "x"}}',
            r"a\.json, entry 'Cat': .*text_field=text",
        ),
        ("a.json", '[{"text": 5}]', r"a\.json, entry 0: a document must"),
        ("a.jsonl", '{"text": "x"}\n{', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", "5", r"a\.jsonl, line 1: a document must"),
    ],
)
def test_bad_json_is_refused_with_its_place(config, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    config = dataclasses.replace(
        config, input=str(tmp_path / name), input_format="json"
    )
    with pytest.raises(ValueError, match=message):
        split_documents(config)
    assert not Path(config.train_dir).exists()


def test_json_that_is_not_utf8_is_refused(config, tmp_path):
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    config = dataclasses.replace(
        config, input=str(tmp_path / "a.json"), input_format="json"
    )
    with pytest.raises(ValueError, match=r"a\.json: byte 2 of the file is not UTF-8"):
        split_documents(config)


def test_side_without_documents_is_refused(config):
    with pytest.raises(ValueError, match="fraction_test_set=1e-09"):
        split_documents(dataclasses.replace(config, fraction_test_set=1e-9))
    assert not Path(config.train_dir).exists()


def test_same_folder_for_both_is_refused(config):
    with pytest.raises(ValueError, match="`test_dir` must be another folder"):
        split_documents(dataclasses.replace(config, test_dir=config.train_dir + "/"))


def test_used_folder_is_refused(config):
    split_documents(config)
    with pytest.raises(FileExistsError, match="`train_dir` must not hold"):
        split_documents(config)
