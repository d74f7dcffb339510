"""Metadata and records of any content are read, or refused in one line of ours."""

import json
import math

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from conftest import make_example
from faults.counts import count
from hypothesis import strategies as st

from bert_tf.data.records.metadata import (
    metadata_file,
    read_metadata,
    write_metadata,
)
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ExampleParser, RecordShape, ValueLimits
from bert_tf.data.records.tfrecord import TfrecordIndex, frame_record
from bert_tf.errors import CorruptRecordError
from bert_tf.files import masked_crc32c

EXAMPLES = count(120, 5000)
LIMITS = ValueLimits(vocab_size=30, type_vocab_size=2)
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not count(0, 1),
    suppress_health_check=list(hypothesis.HealthCheck),
)

NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**400, True, 1e308, -0.0]),
    st.floats(),
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=8), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    max_leaves=6,
)
SHARDS = st.lists(
    st.one_of(
        VALUES,
        st.fixed_dictionaries(
            {
                "name": st.one_of(
                    VALUES, st.sampled_from(["part-0", "../set/part-0", "", "a\0b"])
                ),
                "records": st.one_of(NUMBERS, st.just(2)),
                "bytes": NUMBERS,
                "crc32c": VALUES,
            }
        ),
    ),
    max_size=3,
)
KEYS = [
    *("format", "packed", "max_seq_length", "max_predictions_per_seq"),
    *("max_predictions_per_pack", "max_sequences_per_pack", "vocab_size", "seed"),
    *("original_number_of_samples", "new_number_of_samples", "avg_seq_per_sample"),
    *("packing_efficiency", "padding_tokens_original_dataset", "vocab_sha256"),
    *("config", "anything"),
]
OBJECTS = st.tuples(
    st.fixed_dictionaries({"avg_seq_per_sample": st.sampled_from([1.0, 1, 2.5])}),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    st.fixed_dictionaries({}, optional={"shards": SHARDS}),
).map(lambda parts: parts[0] | parts[1] | parts[2])
# Any bytes, any JSON, and what looks like metadata.
METADATA = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value).encode()),
    OBJECTS.map(lambda values: json.dumps(values).encode()),
    OBJECTS.map(lambda values: json.dumps(values).encode()[:-3]),
)


def test_metadata_of_any_content(tmp_path, figure):
    """The records next to it are opened, or the message names a file."""
    folder = tmp_path / "set"
    folder.mkdir()
    examples = [serialized(make_example(np.random.default_rng(n))) for n in range(2)]
    (folder / "part-0").write_bytes(b"".join(map(frame_record, examples)))
    path, tried = metadata_file(folder), []

    @hypothesis.given(METADATA)
    @SETTINGS
    def check(content):
        with open(path, "wb") as file:
            file.write(content)
        tried.append(content)
        try:
            metadata = read_metadata(folder)
            assert 1 <= metadata.avg_seq_per_sample < math.inf
            write_metadata(folder, metadata)  # What is read can be written, and read.
            assert read_metadata(folder).shards == metadata.shards
            assert len(open_records(str(folder), LIMITS)) == 2
        except (ValueError, CorruptRecordError) as error:
            assert not isinstance(error, UnicodeError)
            assert str(tmp_path) in str(error)
            assert "\n" not in str(error).replace(repr("\n"), "")

    check()
    figure("metadata of any content read or refused", len(tried), len(tried))


def serialized(example):
    """A record in wire format, whatever kind its values are of."""
    features = {}
    for name, values in example.items():
        if any(isinstance(value, bytes) for value in values):
            kind = {"bytes_list": tf.train.BytesList(value=values)}
        elif any(isinstance(value, float) for value in values):
            kind = {"float_list": tf.train.FloatList(value=map(float, values))}
        else:
            kind = {"int64_list": tf.train.Int64List(value=values)}
        features[name] = tf.train.Feature(**kind)
    message = tf.train.Example(features=tf.train.Features(feature=features))
    return message.SerializeToString()


NAMES = [
    *("input_ids", "input_mask", "segment_ids", "masked_lm_positions"),
    *("masked_lm_ids", "masked_lm_weights", "next_sentence_labels"),
]
INTEGERS = st.one_of(
    st.integers(0, 40), st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, 2, 30])
)
LISTS = st.one_of(
    st.lists(INTEGERS, max_size=18),
    st.lists(INTEGERS, min_size=16, max_size=16),
    st.lists(INTEGERS, min_size=4, max_size=4),
    st.lists(st.floats(width=32), max_size=5),
    st.lists(st.binary(max_size=3), min_size=1, max_size=2),
)
CHANGES = st.dictionaries(
    st.sampled_from([*NAMES, "positions", "next_sentence_positions", "x"]),
    st.one_of(st.none(), LISTS),
    max_size=3,
)


@st.composite
def records(draw):
    """Bytes of a record: any; or those of an example with changes, cut or flipped."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=80))
    example = make_example(np.random.default_rng(draw(st.integers(0, 9))))
    for name, values in draw(CHANGES).items():
        example.pop(name, None)
        if values is not None:
            example[name] = values
    data = bytearray(serialized(example))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(0, 3))):
            data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
        data = data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data
    return bytes(data)


def test_records_of_any_content(tmp_path, figure):
    """With a right checksum: all values are in their ranges, or the record is named."""
    path, tried = tmp_path / "part-0", []
    good = serialized(make_example(np.random.default_rng(0)))

    @hypothesis.given(records())
    @SETTINGS
    def check(data):
        tried.append(data)
        path.write_bytes(frame_record(good) + frame_record(data))
        index = TfrecordIndex([str(path)])
        parser = ExampleParser(index, [RecordShape(16, 4)], LIMITS)
        try:
            features = parser(np.arange(2))
        except CorruptRecordError as error:
            assert error.number == 1
            offset = len(frame_record(good))
            assert str(error).startswith(f"{path}, record 1, byte offset {offset}: ")
            assert "\n" not in str(error)
        else:
            assert_in_range(features)
        finally:
            index.close()

    check()
    figure("records of any content read or refused", len(tried), len(tried))


ENDS = {"input_ids": 30, "masked_lm_ids": 30, "masked_lm_positions": 16}
ENDS |= {"positions": 16, "masked_lm_weights": math.inf}


def assert_in_range(features):
    for name, values in features.items():
        assert values.min() >= 0
        assert values.max() < ENDS.get(name, 2)


@pytest.mark.parametrize("is_first", [True, False])
def test_files_of_any_content(tmp_path, figure, is_first):
    """As a TFRecord file: from its first byte, or after a good record."""
    path, tried = tmp_path / "part-0", []
    good = frame_record(serialized(make_example(np.random.default_rng(0))))
    lengths = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 60))
    frames = st.tuples(lengths, st.binary(max_size=40)).map(
        # A right checksum of a length that may be wrong.
        lambda parts: frame_header(parts[0]) + parts[1]
    )

    @hypothesis.given(st.one_of(st.binary(max_size=60), frames))
    @SETTINGS
    def check(content):
        tried.append(content)
        path.write_bytes(content if is_first else good + content)
        try:
            open_records(str(path), LIMITS)
        except CorruptRecordError as error:
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)

    check()
    figure("files of any content read or refused", len(tried), len(tried))


def frame_header(length):
    """Length and checksum of a record's frame."""
    data = length.to_bytes(8, "little")
    return data + masked_crc32c(data).to_bytes(4, "little")
