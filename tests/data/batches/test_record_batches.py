import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import make_example, write_records
from data.shared import LIMITS

from bert_tf.data.batches.record_batches import (
    BatchShape,
    TrainingReader,
    evaluation_batches,
)
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import (
    ExampleParser,
    RecordShape,
    record_shapes,
)
from bert_tf.data.records.skipping import SkippingParser
from bert_tf.data.records.tfrecord import TfrecordIndex
from bert_tf.errors import CorruptRecordError

ORDER = RecordOrder(num_records=150, seed=5)


@pytest.fixture(scope="module")
def records(tiny_records):
    return open_records(tiny_records, LIMITS)


def test_features_are_those_that_tensorflow_parses(records, tiny_records):
    dataset = tf.data.TFRecordDataset(record_files(tiny_records)).batch(150)
    spec = RecordShape(16, 4).specification()
    expected = tf.io.parse_example(next(iter(dataset)), spec)
    features = records.parser(np.arange(150))
    for name, values in expected.items():
        np.testing.assert_array_equal(features[name], values.numpy())
    np.testing.assert_array_equal(features["positions"][3], np.arange(16))
    assert features["next_sentence_positions"].tolist() == [[0]] * 150


@pytest.mark.parametrize("size, steps", [(1, 4), (1, 1), (2, 2), (4, 1)])
def test_any_cutting_reads_the_same_global_batches(records, size, steps):
    per_rank = []
    for rank in range(size):
        shape = BatchShape(
            micro_batch_size=32 // size // steps,
            num_micro_batches=steps,
            rank=rank,
            size=size,
        )
        reader = TrainingReader(records.parser, ORDER, shape)
        batches = [b["input_ids"] for b in reader.batches(6)]
        per_rank.append(np.reshape(batches, (6, 32 // size, 16)))
    whole = np.concatenate(per_rank, axis=1)
    for step in range(6):
        numbers = ORDER.records(step * 32, 32)
        expected = records.parser(numbers)["input_ids"]
        np.testing.assert_array_equal(whole[step], expected)


def test_reading_resumes_anywhere(records):
    shape = BatchShape(micro_batch_size=8, num_micro_batches=2)
    whole = list(TrainingReader(records.parser, ORDER, shape).batches(12))
    later = TrainingReader(
        records.parser, ORDER, shape, first_step=7, first_position=7 * 16
    )
    rest = list(later.batches(12))
    assert len(whole) == 12
    assert len(rest) == 5
    for a, b in zip(whole[7:], rest, strict=True):
        np.testing.assert_array_equal(a["input_ids"], b["input_ids"])


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("max_batches", [1, 4, 100])
def test_evaluation_reads_the_same_records_on_any_number_of_ranks(
    records, size, max_batches
):
    rows, lengths = [], []
    for rank in range(size):
        batches = evaluation_batches(
            records.parser,
            ORDER,
            batch_size=32,
            max_batches=max_batches,
            rank=rank,
            size=size,
        )
        batches = list(batches)
        lengths.append(len(batches))
        for batch in batches:
            real = batch["next_sentence_weights"][:, 0] > 0
            rows += [tuple(row) for row in batch["input_ids"][real]]
            assert not batch["masked_lm_weights"][~real].any()
    count = min(150, 32 * max_batches)
    expected = records.parser(ORDER.records(0, count))["input_ids"]
    assert sorted(rows) == sorted(map(tuple, expected))
    assert len(set(lengths)) == 1


def write_one(folder, **changes):
    example = make_example(np.random.default_rng(1)) | changes
    write_records(folder / "part-0", [example])
    return str(folder / "part-0")


@pytest.mark.parametrize(
    "name, value, limit",
    [
        ("input_ids", [30] + [1] * 15, 30),
        ("input_ids", [-1] + [1] * 15, 30),
        ("masked_lm_ids", [99, 0, 0, 0], 30),
        ("segment_ids", [2] * 16, 2),
        ("masked_lm_positions", [16, 0, 0, 0], 16),
        ("next_sentence_labels", [2], 2),
    ],
)
def test_values_beyond_the_model_are_refused(tmp_path, name, value, limit):
    path = write_one(tmp_path, **{name: value})
    pattern = rf"{path}, record 0, byte offset 0: `{name}` must be in \[0, {limit}\)"
    with pytest.raises(CorruptRecordError, match=pattern):
        open_records(path, LIMITS)


def test_another_length_names_both_numbers(tiny_records):
    with pytest.raises(CorruptRecordError, match="max_seq_length=16.*=128"):
        open_records(tiny_records, LIMITS, max_seq_length=128)
    with pytest.raises(CorruptRecordError, match="_per_seq=4.*=20"):
        open_records(tiny_records, LIMITS, max_predictions_per_seq=20)


def test_records_without_a_feature_are_refused(tmp_path):
    example = make_example(np.random.default_rng(1))
    del example["segment_ids"]
    write_records(tmp_path / "part-0", [example])
    with pytest.raises(CorruptRecordError, match="lacks segment_ids"):
        open_records(str(tmp_path), LIMITS)


def test_files_of_different_lengths_are_refused(tmp_path):
    rng = np.random.default_rng(1)
    write_records(tmp_path / "part-0", [make_example(rng)])
    write_records(tmp_path / "part-1", [make_example(rng, max_seq_length=24)])
    with pytest.raises(CorruptRecordError, match="same lengths"):
        open_records(str(tmp_path), LIMITS)


def test_a_feature_of_another_type_or_length_is_named(tmp_path):
    rng = np.random.default_rng(1)
    good, short = make_example(rng), make_example(rng)
    short["segment_ids"] = short["segment_ids"][:-1]
    write_records(tmp_path / "part-0", [good, short])
    with pytest.raises(CorruptRecordError, match=r"part-0, record 1, .*segment_ids"):
        open_records(str(tmp_path), LIMITS)


def test_metadata_is_found_through_a_link(tiny_records, tmp_path):
    (tmp_path / "real").mkdir()
    shutil.copytree(tiny_records, tmp_path / "real" / "set")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "set")
    text = '{"avg_seq_per_sample": 1.0, "packed": false, "shards": []}'
    (tmp_path / "real" / "set_metadata.json").write_text(text)
    with pytest.raises(CorruptRecordError, match="set_metadata.json does not list"):
        open_records(str(tmp_path / "link"), LIMITS)


def test_a_record_of_another_length_within_a_file_is_named(tmp_path):
    rng = np.random.default_rng(1)
    examples = [make_example(rng), make_example(rng, max_seq_length=24)]
    write_records(tmp_path / "part-0", examples)
    index = TfrecordIndex(record_files(str(tmp_path)))
    parser = ExampleParser(index, record_shapes(index), LIMITS)
    with pytest.raises(CorruptRecordError, match="record 1, byte offset"):
        parser(np.asarray([0, 1]))


def test_the_records_of_a_micro_batch_are_named(records):
    shape = BatchShape(micro_batch_size=4, num_micro_batches=2, rank=1, size=2)
    reader = TrainingReader(records.parser, ORDER, shape)
    numbers = ORDER.records(3 * 16, 16)[12:]  # The last quarter.
    names = []
    for number in sorted(numbers):
        file = np.searchsorted([60, 110, 150], number, side="right")
        names.append(f"train/part-{file}.tfrecord:{number - [0, 60, 110][file]}")
    assert reader.name_rows(3, 1) == f"records {','.join(names)}"


def test_skipped_records_are_rows_of_weight_0_of_training_and_evaluation(records):
    parser = SkippingParser(records.parser._parser, np.asarray([3, 149]))
    shape = BatchShape(micro_batch_size=25, num_micro_batches=2)
    features = [*TrainingReader(parser, ORDER, shape).batches(3)]
    weights = np.ravel([batch["next_sentence_weights"] for batch in features])
    expected = ~np.isin(ORDER.records(0, 150), [3, 149])
    np.testing.assert_array_equal(weights, expected)
    batches = evaluation_batches(parser, ORDER, batch_size=8, max_batches=100)
    counted = sum(batch["next_sentence_weights"].sum() for batch in batches)
    assert counted == 148
