import dataclasses
from pathlib import Path

import pytest
from data.shared import contents
from texts import read_documents

from bert_tf.config.text import ShardConfig
from bert_tf.data.commands.shard import belongs_to_test, shard_documents
from bert_tf.data.text.input_files import expand_paths


@pytest.fixture
def config(text_file, tmp_path):
    return ShardConfig(
        input=text_file,
        output_dir=str(tmp_path / "shards"),
        n_training_shards=3,
        n_test_shards=2,
        fraction_test_set=0.3,
        num_processes=1,
    )


def documents_of(config, side):
    pattern = f"{config.output_dir}/{side}-*.txt"
    return list(read_documents(expand_paths(pattern), "google"))


def test_every_document_is_on_one_side(config):
    counts = shard_documents(config)
    train, test = documents_of(config, "training"), documents_of(config, "test")
    assert counts["training"]["documents"] == len(train)
    assert counts["test"]["documents"] == len(test)
    assert counts["test"]["sentences"] == sum(map(len, test))
    every = list(read_documents([config.input], "google"))
    assert sorted(train + test) == sorted(every)
    assert len(contents(config.output_dir)) == 5


def test_side_depends_on_text_and_seed_only(config, tmp_path):
    shard_documents(config)
    documents = list(read_documents([config.input], "google"))
    (tmp_path / "turned.txt").write_text(
        "\n\n".join("\n".join(document) for document in reversed(documents))
    )
    turned = dataclasses.replace(
        config,
        input=str(tmp_path / "turned.txt"),
        output_dir=str(tmp_path / "turned"),
        n_training_shards=2,
    )
    shard_documents(turned)
    test = sorted(documents_of(config, "test"))
    assert sorted(documents_of(turned, "test")) == test
    other = dataclasses.replace(config, seed=1, output_dir=str(tmp_path / "other"))
    shard_documents(other)
    assert sorted(documents_of(other, "test")) != test


@pytest.mark.parametrize("shards", [(1, 1), (3, 2), (2, 5)])
def test_bytes_do_not_depend_on_the_number_of_processes(config, tmp_path, shards):
    training, test = shards
    made = []
    for number in (1, 3):
        one = dataclasses.replace(
            config,
            output_dir=str(tmp_path / f"processes_{number}"),
            n_training_shards=training,
            n_test_shards=test,
            num_processes=number,
        )
        shard_documents(one)
        made.append(contents(one.output_dir))
    assert made[0] == made[1]


def test_share_of_test_documents_is_the_fraction():
    chosen = [belongs_to_test([f"document {n}"], 0, 0.2) for n in range(10_000)]
    # Five standard deviations of a binomial share of 0.2 over 10,000: 0.02.
    assert abs(sum(chosen) / 10_000 - 0.2) < 0.02


@pytest.mark.parametrize(
    "options",
    [
        {"fraction_test_set": 1e-9},
        {"n_training_shards": 100},
        {"n_test_shards": 100},
    ],
)
def test_shard_without_documents_is_refused(config, options):
    with pytest.raises(ValueError, match="must leave no shard empty, but"):
        shard_documents(dataclasses.replace(config, **options))
    assert not Path(config.output_dir).exists()


def test_finished_shards_are_kept_and_used_folders_refused(config):
    first = shard_documents(config)
    before = contents(config.output_dir)
    assert shard_documents(config) == first
    with pytest.raises(FileExistsError, match="`output_dir` must not hold"):
        shard_documents(dataclasses.replace(config, seed=3))
    assert contents(config.output_dir) == before


def test_documents_without_words_are_left_out(config, tmp_path):
    text = Path(config.input).read_text()
    path = tmp_path / "junk.txt"
    path.write_text(text.replace("\n\n", "\n\n\x1a\n\u200b\n\n"), encoding="utf-8")
    first = shard_documents(config)
    other = dataclasses.replace(
        config, input=str(path), output_dir=str(tmp_path / "other")
    )
    found = shard_documents(other)
    for side in ("training", "test"):
        assert found[side]["documents"] == first[side]["documents"]
