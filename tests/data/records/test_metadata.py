import dataclasses
import json
import shlex

import pytest

from bert_tf.data.records.metadata import (
    Metadata,
    Shard,
    read_metadata,
    rewriting,
    write_metadata,
)

METADATA = Metadata(
    packed=False,
    max_seq_length=128,
    max_predictions_per_seq=20,
    max_predictions_per_pack=20,
    max_sequences_per_pack=1,
    original_number_of_samples=5,
    new_number_of_samples=5,
    avg_seq_per_sample=1.0,
    packing_efficiency=0.75,
    padding_tokens_original_dataset=160,
    shards=(
        Shard(name="a", records=3, bytes=30, crc32c="0123abcd"),
        Shard(name="b", records=2, bytes=20, crc32c="00000000"),
    ),
    vocab_size=30522,
    vocab_sha256="07eced",
    seed=0,
    config={"input": "text", "do_lower_case": True},
    extra={"expected_speedup": 2.0, "top_8_strategies": [1, 2]},
)
# What the packer of Habana's Model-References writes: these keys, and no others.
HABANA = {
    "avg_seq_per_sample": 1.98,
    "compression_ratio": 0.5,
    "expected_speedup": 1.9,
    "new_number_of_samples": 50,
    "num_strategies_utilized": 10,
    "original_number_of_samples": 99,
    "packing_efficiency": 0.99,
    "padding_tokens_original_dataset": 1000,
    "padding_tokens_packed_dataset": 10,
    "sequences_dropped": 0,
    "theoretical_speedup": 2.0,
    "top_8_strategies": [3, 1],
}


def test_metadata_comes_back(tmp_path):
    path = write_metadata(tmp_path / "records", METADATA)
    assert path == str(tmp_path / "records_metadata.json")
    assert read_metadata(f"{tmp_path}/records/") == METADATA
    assert [entry.name for entry in tmp_path.iterdir()] == ["records_metadata.json"]


def test_file_holds_plain_sorted_keys(tmp_path):
    values = json.loads(open(write_metadata(tmp_path / "r", METADATA)).read())
    assert list(values) == sorted(values)
    assert values["shards"][1] == {
        "name": "b",
        "records": 2,
        "bytes": 20,
        "crc32c": "00000000",
    }
    assert values["packed"] is False
    assert values["expected_speedup"] == 2.0


def test_missing_file_is_no_metadata(tmp_path):
    assert read_metadata(tmp_path / "records") is None


def test_metadata_of_habana_says_packed(tmp_path):
    (tmp_path / "r_metadata.json").write_text(json.dumps(HABANA))
    metadata = read_metadata(tmp_path / "r")
    assert metadata.packed
    assert metadata.avg_seq_per_sample == 1.98
    assert metadata.shards is None
    assert metadata.max_seq_length is None
    assert metadata.extra["sequences_dropped"] == 0


SIZES = {"records": 1, "bytes": 1, "crc32c": "0"}
SUMMARY = (
    *("records", "documents", "repeated_documents", "text_tokens", "unknown_tokens"),
    *("random_next", "unmasked", "dropped_tokens", "drawn_tokens"),
)


def test_a_summary_of_counts_is_kept(tmp_path):
    values = dataclasses.asdict(METADATA)
    values["text_summary"] = dict.fromkeys(SUMMARY, 1)
    (tmp_path / "r_metadata.json").write_text(json.dumps(values))
    found = read_metadata(tmp_path / "r").extra["text_summary"]
    assert found == values["text_summary"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"avg_seq_per_sample": "two"}, "avg_seq_per_sample"),
        ({"avg_seq_per_sample": float("nan")}, "avg_seq_per_sample"),
        ({"avg_seq_per_sample": float("inf")}, "avg_seq_per_sample"),
        ({"avg_seq_per_sample": 0.5}, "avg_seq_per_sample"),
        ({"avg_seq_per_sample": 2.0}, "avg_seq_per_sample"),
        ({"avg_seq_per_sample": True}, "avg_seq_per_sample"),
        ({"avg_seq_per_sample": None}, "avg_seq_per_sample"),
        ({"packing_efficiency": 1.5}, "packing_efficiency"),
        ({"max_seq_length": 128.5}, "max_seq_length"),
        ({"max_seq_length": -1}, "max_seq_length"),
        ({"max_seq_length": True}, "max_seq_length"),
        ({"packed": "no"}, "packed"),
        ({"packed": 0}, "packed"),
        ({"shards": {}}, "shards"),
        ({"shards": [1]}, "shards"),
        ({"shards": [{"name": "a"}]}, "shards"),
        ({"shards": []}, "new_number_of_samples"),
        ({"new_number_of_samples": 6}, "new_number_of_samples"),
        ({"vocab_sha256": 5}, "vocab_sha256"),
        ({"config": []}, "config"),
        ({"config": {"a": [float("nan")]}}, "a"),
        ({"more": float("inf")}, "more"),
        ({"shards": [{"name": "../a", **SIZES}]}, "name"),
        ({"text_summary": [1]}, "text_summary"),
        ({"text_summary": {}}, "text_summary"),
        ({"text_summary": dict.fromkeys(SUMMARY, 0)}, "text_summary"),
        ({"text_summary": dict.fromkeys(SUMMARY, "1")}, "text_summary"),
    ],
)
def test_wrong_value_is_refused_with_file_and_key(tmp_path, change, key):
    values = dataclasses.asdict(METADATA) | change
    del values["extra"]
    (tmp_path / "r_metadata.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"r_metadata.json.*`{key}` must"):
        read_metadata(tmp_path / "r")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 100_000]
)
def test_garbage_is_refused_with_the_file(tmp_path, content):
    (tmp_path / "r_metadata.json").write_bytes(content)
    with pytest.raises(ValueError, match="r_metadata.json"):
        read_metadata(tmp_path / "r")


def test_nothing_is_left_of_metadata_that_cannot_be_written(tmp_path):
    metadata = dataclasses.replace(METADATA, extra={"bad": object()})
    with pytest.raises(TypeError):
        write_metadata(tmp_path / "r", metadata)
    assert list(tmp_path.iterdir()) == []


def test_the_command_in_messages_takes_a_folder_with_a_blank(tmp_path):
    words = shlex.split(rewriting(tmp_path / "my records").strip("`"))
    assert f"--input_dir={tmp_path}/my records" in words
