import struct

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.data.pretraining.instances import TrainingInstance
from bert_tf.data.records.tfrecord import (
    RecordWriter,
    serialize_example,
    serialize_instance,
    shard_name,
)

S, P = 16, 4
INSTANCE = TrainingInstance(
    input_ids=[101, 7, 103, 102, 30521, 200, 102],
    segment_ids=[0, 0, 0, 0, 1, 1, 1],
    is_random_next=True,
    masked_lm_positions=[2, 5],
    masked_lm_ids=[128, 16384],
)
PADDED = {
    "input_ids": [101, 7, 103, 102, 30521, 200, 102] + [0] * 9,
    "input_mask": [1] * 7 + [0] * 9,
    "segment_ids": [0] * 4 + [1] * 3 + [0] * 9,
    "masked_lm_positions": [2, 5, 0, 0],
    "masked_lm_ids": [128, 16384, 0, 0],
    "masked_lm_weights": [1.0, 1.0, 0.0, 0.0],
    "next_sentence_labels": [1],
}


def test_examples_parse_by_the_specification_of_google_research():
    specification = {
        "input_ids": tf.io.FixedLenFeature([S], tf.int64),
        "input_mask": tf.io.FixedLenFeature([S], tf.int64),
        "segment_ids": tf.io.FixedLenFeature([S], tf.int64),
        "masked_lm_positions": tf.io.FixedLenFeature([P], tf.int64),
        "masked_lm_ids": tf.io.FixedLenFeature([P], tf.int64),
        "masked_lm_weights": tf.io.FixedLenFeature([P], tf.float32),
        "next_sentence_labels": tf.io.FixedLenFeature([1], tf.int64),
    }
    data = serialize_instance(INSTANCE, S, P)
    parsed = tf.io.parse_example([data, data], specification)
    for name, expected in PADDED.items():
        np.testing.assert_array_equal(parsed[name].numpy(), [expected, expected])


def test_example_is_the_one_that_tensorflow_would_write():
    feature = {
        name: tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if name.endswith("weights")
        else tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        for name, values in PADDED.items()
    }
    expected = tf.train.Example(features=tf.train.Features(feature=feature))
    data = serialize_instance(INSTANCE, S, P)
    assert tf.train.Example.FromString(data) == expected
    assert len(data) == expected.ByteSize()


@pytest.mark.parametrize("count", [0, 1, 200])
def test_numbers_of_any_size_survive(count):
    ints = [0, 1, 127, 128, 16383, 16384, 2**31, 2**63 - 1, -1, -(2**63)] * count
    floats = [0.0, -1.5, 3.4e38] * count
    data = serialize_example({"ints": ints}, {"größe": floats})
    feature = tf.train.Example.FromString(data).features.feature
    assert list(feature["ints"].int64_list.value) == ints
    np.testing.assert_array_equal(
        feature["größe"].float_list.value, np.asarray(floats, np.float32)
    )


def test_file_is_byte_for_byte_that_of_tensorflow(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 300]
    with tf.io.TFRecordWriter(str(tmp_path / "expected")) as expected:
        for record in records:
            expected.write(record)
    with RecordWriter(tmp_path / "ours") as writer:
        for record in records:
            writer.write(record)
    content = (tmp_path / "ours").read_bytes()
    assert content == (tmp_path / "expected").read_bytes()
    assert writer.num_records == 3
    assert writer.num_bytes == len(content)


def test_checksum_is_that_of_the_file(tmp_path):
    with RecordWriter(tmp_path / "ours") as writer:
        writer.write(b"one")
        writer.write(b"two")
    # TFRecord's own checksum of the file's bytes as one record, unmasked.
    with tf.io.TFRecordWriter(str(tmp_path / "whole")) as whole:
        whole.write((tmp_path / "ours").read_bytes())
    [masked] = struct.unpack("<I", (tmp_path / "whole").read_bytes()[-4:])
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert writer.crc32c == f"{(rotated >> 17 | rotated << 15) & 0xFFFFFFFF:08x}"


def test_file_has_its_name_only_when_complete(tmp_path):
    writer = RecordWriter(tmp_path / "a")
    writer.write(b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tmp"]
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_file_is_given_up_after_an_error(tmp_path):
    with pytest.raises(KeyError), RecordWriter(tmp_path / "a") as writer:
        writer.write(b"one")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_shards_are_named_by_number_and_count():
    assert shard_name(0, 4) == "part-00000-of-00004.tfrecord"
