import numpy as np
import pytest
import tensorflow as tf

from bert_tf.data.pretraining.instances import TrainingInstance
from bert_tf.data.records.examples import serialize_examples, serialize_instances

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
    examples = serialize_instances([INSTANCE, INSTANCE], S, P)
    parsed = tf.io.parse_example(examples, specification)
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
    [data] = serialize_instances([INSTANCE], S, P)
    assert tf.train.Example.FromString(data) == expected
    assert len(data) == expected.ByteSize()


def test_instances_of_different_lengths_are_padded_alike():
    short = TrainingInstance([101, 9, 102, 102], [0, 0, 0, 1], False, [], [])
    data, other = serialize_instances([INSTANCE, short], S, P)
    assert [data] == serialize_instances([INSTANCE], S, P)
    feature = tf.train.Example.FromString(other).features.feature
    assert list(feature["input_ids"].int64_list.value) == [101, 9, 102, 102] + [0] * 12
    assert list(feature["masked_lm_weights"].float_list.value) == [0.0] * P


@pytest.mark.parametrize("width", [0, 1, 300])
def test_numbers_of_any_size_survive(width):
    rng = np.random.default_rng(0)
    edges = [0, 1, 127, 128, 16383, 16384, 2**16 - 1, 2**16, 2**21, 2**28 - 1]
    ids = rng.choice(edges, (6, width))
    weights = rng.random((6, width)).astype("f4")
    for row, data in enumerate(serialize_examples({"ids": ids, "größe": weights})):
        feature = tf.train.Example.FromString(data).features.feature
        assert list(feature["ids"].int64_list.value) == ids[row].tolist()
        assert list(feature["größe"].float_list.value) == weights[row].tolist()


@pytest.mark.parametrize("number", [-1, 2**28])
def test_numbers_that_are_no_ids_are_refused(number):
    with pytest.raises(ValueError, match=r"must be in \[0, 2\*\*28\)"):
        serialize_examples({"ids": np.array([[number]])})
