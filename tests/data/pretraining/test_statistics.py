import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.commands import create
from bert_tf.data.commands.create import create_records
from bert_tf.data.pretraining import document_groups
from bert_tf.data.pretraining.statistics import (
    SUMMARY,
    describe_summary,
    different_documents,
    merge_samples,
)
from bert_tf.data.records.metadata import metadata_file, read_metadata
from bert_tf.errors import RunError


@pytest.fixture
def make(vocab_file, tmp_path):
    """Makes records of a text; its metadata, summary and warnings."""

    def run(text, **options):
        (tmp_path / "text.txt").write_text(text, encoding="utf-8")
        config = CreateDataConfig(
            input=str(tmp_path / "text.txt"),
            output_dir=str(tmp_path / "records"),
            vocab_file=vocab_file,
            num_processes=1,
            dupe_factor=2,
            overwrite=True,
            max_seq_length=options.pop("max_seq_length", 32),
            **options,
        )
        metadata = create_records(config)
        found = metadata.extra[SUMMARY]
        return found, *describe_summary(found, has_pairs=config.do_nsp)

    return run


def documents(count, sentences=4):
    return "\n\n".join(
        "\n".join(f"the cat sat on mat {n * 10 + k} ." for k in range(sentences))
        for n in range(count)
    )


def test_without_pairs_no_token_is_dropped_and_one_document_is_enough(make):
    found, line, warnings = make(documents(1, sentences=9), do_nsp=False)
    assert (warnings, found["documents"], found["random_next"]) == ([], 1, 0)
    assert "random next segment" not in line and "0.0% have no mask" in line
    assert found["dropped_tokens"] == 0


def test_ordinary_text_has_a_summary_and_no_warning(make):
    found, line, warnings = make(documents(30))
    assert warnings == []
    assert found["documents"] == 30
    assert found["repeated_documents"] == found["unknown_tokens"] == 0
    # Each of the 120 sentences has six tokens and one for each digit of its number.
    digits = sum(len(str(n * 10 + k)) for n in range(30) for k in range(4))
    assert found["text_tokens"] == 120 * 6 + digits
    assert line.startswith("30 documents (0.0% repeated)")


def test_a_blank_line_after_each_sentence_is_noticed(make):
    found, _, warnings = make(documents(40, sentences=1))
    assert found["random_next"] == found["records"] == 80
    assert "80 of 80 records (100.0%) have a random next segment" in warnings[0]


def test_text_of_another_language_is_noticed(make):
    found, line, warnings = make("ខ្ញុំ ទៅ។\nគាត់ ទិញ។\n\nវា ស្រស់។\nល្អ ណាស់។\n")
    assert found["unknown_tokens"] == found["text_tokens"]
    assert "100.00% [UNK]" in line
    assert "100.0% of the tokens are [UNK]" in warnings[0]


def test_records_without_masks_are_noticed(make):
    text = "\n\n".join(
        ["aaaaaaaaa bbbbbbbbb\nccccccccc"] * 2 + ["ddddddddd\neeeeeeeee"]
    )
    options = {"do_whole_word_mask": True, "max_predictions_per_seq": 4}
    options |= {"short_seq_prob": 0.0, "max_seq_length": 64}
    found, _, warnings = make(text, **options)
    assert found["unmasked"] == found["records"] > 0
    assert f"{found['records']} of {found['records']} records have no" in warnings[0]
    # The advice works.
    more = {"max_predictions_per_seq": 20, "masked_lm_prob": 0.5}
    assert make(text, **options | more)[0]["unmasked"] == 0


def test_tokens_that_are_cut_off_are_noticed(make):
    found, line, warnings = make("the cat " * 1000 + "\n\n" + "a dog " * 1000)
    # Of 4,000 tokens, twice, a record keeps 29 less those of the other segment.
    assert found["drawn_tokens"] == 8000
    assert found["dropped_tokens"] > 8000 - 4 * 29
    assert any("of the tokens are dropped, since lines are long" in x for x in warnings)


def test_kept_tokens_are_those_of_the_records(make):
    found, _, _ = make(documents(5), max_seq_length=128, short_seq_prob=0.0)
    assert found["dropped_tokens"] == 0


def test_repeated_documents_are_noticed(make):
    found, _, warnings = make("\n\n".join([documents(1)] * 20 + [documents(1, 2)]))
    assert (found["documents"], found["repeated_documents"]) == (21, 19)
    assert "about 19 of 21 documents repeat" in warnings[0]


def test_the_summary_is_written_to_the_metadata_and_printed_again(make, tmp_path):
    found, line, _ = make(documents(12))
    stored = json.loads(Path(metadata_file(tmp_path / "records")).read_text())
    assert stored["text_summary"] == found
    assert make(documents(12))[1] == line


@pytest.fixture
def many_groups(vocab_file, text_file, tmp_path, monkeypatch):
    monkeypatch.setattr(document_groups, "GROUP_BYTES", 300)
    return CreateDataConfig(
        input=text_file,
        output_dir=str(tmp_path / "records"),
        vocab_file=vocab_file,
        max_seq_length=32,
        dupe_factor=12,
        num_shards=3,
        num_processes=1,
    )


@pytest.mark.parametrize("num_shards", [1, 3, 40])
def test_the_summary_does_not_depend_on_the_shards(many_groups, num_shards, tmp_path):
    one = create_records(many_groups).extra[SUMMARY]
    other = dataclasses.replace(
        many_groups, num_shards=num_shards, output_dir=str(tmp_path / "other")
    )
    assert create_records(other).extra[SUMMARY] == one


def test_the_summary_of_stopped_work_is_that_of_all_of_it(
    many_groups, tmp_path, monkeypatch
):
    whole = create_records(
        dataclasses.replace(many_groups, output_dir=str(tmp_path / "whole"))
    )

    def make_two_thirds(group, *rest):
        if group.ranges[0].begin > os.path.getsize(many_groups.input) * 0.7:
            raise RunError("the power failed")
        return original(group, *rest)

    original = create.make_group_records
    monkeypatch.setattr(create, "make_group_records", make_two_thirds)
    with pytest.raises(RunError):
        create_records(many_groups)
    monkeypatch.setattr(create, "make_group_records", original)
    again = create_records(many_groups)
    assert again.extra[SUMMARY] == whole.extra[SUMMARY]
    assert read_metadata(many_groups.output_dir).extra == again.extra


def test_many_different_documents_are_counted_within_the_bound():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**56, 100_000).tolist()
    sample = merge_samples([hashes[:70_000], hashes[30_000:]])
    # Four standard deviations of 1 / sqrt(256).
    assert abs(different_documents(sample, 140_000) / 100_000 - 1) < 0.25
    assert different_documents(merge_samples([hashes[:99]] * 3), 300) == 99
