"""Records converted, chopped and picked: nothing lost, nothing changed."""

import h5py
import numpy as np
import pytest
from conftest import make_example, write_records
from data.shared import LIMITS, assert_equal_arrays, read_features
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig
from bert_tf.config.data import PackDataConfig
from bert_tf.data.batches.record_batches import BatchShape, TrainingReader
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.commands import convert as convert_command
from bert_tf.data.commands.convert import chop_records, convert_records, pick_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.records.metadata import read_metadata
from bert_tf.data.records.record_set import open_records
from bert_tf.errors import CorruptRecordError, RunError

COUNTS = (23, 1, 40)


def examples_of(count, seed):
    """Records of 6 to 16 tokens, padded with zeros to 16, P = 4."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        example = make_example(rng, max_seq_length=16)
        size = min(int(rng.integers(6, 17)), sum(example["input_mask"]))
        for name in ("input_ids", "input_mask", "segment_ids"):
            example[name] = [*example[name][:size], *[0] * (16 - size)]
        positions = sorted(rng.choice(np.arange(1, size), 3, replace=False).tolist())
        example["masked_lm_positions"] = [*positions, 0]
        example["masked_lm_ids"] = [*example["masked_lm_ids"][:3], 0]
        example["masked_lm_weights"] = [1.0, 1.0, 1.0, 0.0]
        yield example


@pytest.fixture(scope="module")
def tfrecords(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copying") / "records"
    folder.mkdir()
    for number, count in enumerate(COUNTS):
        examples = list(examples_of(count, number))
        write_records(folder / f"part-{number:05d}-of-00003.tfrecord", examples)
    return folder


def convert(source, target, **options):
    config = ConvertDataConfig(
        input_dir=str(source), output_dir=str(target), num_processes=1, **options
    )
    return convert_records(config)


FORMS = [
    {},
    {"compression": "gzip"},
    {"variable_length": True},
]


@pytest.mark.parametrize("form", FORMS, ids=["padded", "gzip", "variable length"])
def test_conversion_and_back_loses_nothing(tfrecords, tmp_path, form):
    metadata = convert(tfrecords, tmp_path / "h", **form)
    assert metadata == read_metadata(tmp_path / "h")
    assert metadata.format == "hdf5"
    assert [shard.records for shard in metadata.shards] == list(COUNTS)
    assert_equal_arrays(read_features(tfrecords), read_features(tmp_path / "h"))
    convert(tmp_path / "h", tmp_path / "t", format="tfrecord")
    for number, path in enumerate(sorted((tmp_path / "t").iterdir())):
        back = read_features(path)
        assert_equal_arrays(back, read_features(sorted(tfrecords.iterdir())[number]))
    again = convert(tmp_path / "t", tmp_path / "h2", **form)
    assert again.shards == metadata.shards  # Names, sizes and checksums.


def test_our_own_records_come_back_to_the_last_byte(tfrecords, tmp_path):
    convert(tfrecords, tmp_path / "h")
    convert(tmp_path / "h", tmp_path / "t", format="tfrecord")
    convert(tmp_path / "t", tmp_path / "h2")
    convert(tmp_path / "h2", tmp_path / "t2", format="tfrecord")
    for path in (tmp_path / "t").iterdir():
        assert path.read_bytes() == (tmp_path / "t2" / path.name).read_bytes()


def test_files_are_as_the_pytorch_trainers_expect(tfrecords, tmp_path):
    convert(tfrecords, tmp_path / "h")
    features = read_features(sorted(tfrecords.iterdir())[0])
    expected = {
        "input_ids": "i4",
        "input_mask": "i1",
        "segment_ids": "i1",
        "masked_lm_positions": "i4",
        "masked_lm_ids": "i4",
        "next_sentence_labels": "i1",
    }
    with h5py.File(tmp_path / "h" / "part_00000_of_00003.hdf5") as file:
        assert set(file) == set(expected)
        for name, dtype in expected.items():
            assert file[name].dtype == dtype
            np.testing.assert_array_equal(
                file[name][:].reshape(features[name].shape), features[name]
            )


def test_training_reads_the_same_batches_from_either(tfrecords, tmp_path):
    convert(tfrecords, tmp_path / "h")
    readers = []
    for folder in (tfrecords, tmp_path / "h"):
        records = open_records(str(folder), LIMITS)
        order = RecordOrder(num_records=len(records), seed=3)
        shape = BatchShape(micro_batch_size=4, num_micro_batches=2)
        readers.append(TrainingReader(records.parser, order, shape))
    for step in range(20):  # More than two epochs.
        assert_equal_arrays(readers[0].batch(step), readers[1].batch(step))


def test_packed_records_have_no_form_in_hdf5(tfrecords, tmp_path):
    config = PackDataConfig(
        input_dir=str(tfrecords), output_dir=str(tmp_path / "p"), num_processes=1
    )
    pack_records(config)
    with pytest.raises(
        CorruptRecordError, match="packed records, which HDF5 files cannot store"
    ):
        convert(tmp_path / "p", tmp_path / "h")
    assert not (tmp_path / "h").exists()


def test_hdf5_is_packed_as_tfrecords_are(tfrecords, tmp_path):
    convert(tfrecords, tmp_path / "h")
    made = []
    for source in (tfrecords, tmp_path / "h"):
        config = PackDataConfig(
            input_dir=str(source),
            output_dir=str(tmp_path / f"packed-{source.name}"),
            num_processes=1,
        )
        made.append(pack_records(config).shards)
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masked_lm_positions": [0, 5, 6, 0]}, "masked_lm_weights"),
        ({"masked_lm_weights": [1.0, 0.0, 1.0, 0.0]}, "masked_lm_weights"),
        ({"segment_ids": [200] * 16}, r"`segment_ids` must be in \[0, 127\]"),
    ],
)
def test_what_would_be_lost_is_refused_with_its_place(tmp_path, change, message):
    examples = list(examples_of(5, 0))
    examples[3] |= change
    (tmp_path / "in").mkdir()
    write_records(tmp_path / "in" / "part-0", examples)
    with pytest.raises(CorruptRecordError, match=f"part-0, record 3.*{message}"):
        convert(tmp_path / "in", tmp_path / "h")
    assert not (tmp_path / "h").exists()


@pytest.fixture(scope="module", params=["tfrecord", "hdf5", "variable"])
def source(request, tfrecords, tmp_path_factory):
    if request.param == "tfrecord":
        return tfrecords
    folder = tmp_path_factory.mktemp("source") / "h"
    convert(tfrecords, folder, variable_length=request.param == "variable")
    return folder


@pytest.mark.parametrize("num_shards", [1, 2, 7, sum(COUNTS)])
def test_chopping_keeps_every_record_once_in_order(source, tmp_path, num_shards):
    config = ChopDataConfig(
        input_dir=str(source),
        output_dir=str(tmp_path / "out"),
        num_shards=num_shards,
        num_processes=1,
    )
    metadata = chop_records(config)
    assert_equal_arrays(read_features(source), read_features(tmp_path / "out"))
    sizes = [shard.records for shard in metadata.shards]
    assert len(sizes) == num_shards
    assert max(sizes) - min(sizes) <= 1
    assert metadata.format == read_metadata(tmp_path / "out").format


def test_chopping_into_more_shards_than_records_is_refused(source, tmp_path):
    config = ChopDataConfig(
        input_dir=str(source), output_dir=str(tmp_path / "out"), num_processes=1
    )
    with pytest.raises(ValueError, match="at most the number of records, 64. Received"):
        chop_records(config)


def pick(source, target, count, **options):
    config = PickEvalConfig(
        input_dir=str(source),
        output_dir=str(target),
        num_examples=count,
        num_processes=1,
        **options,
    )
    return pick_records(config)


@pytest.mark.parametrize("count", [1, 10, 33, 64])
def test_picked_records_are_spread_evenly(source, tmp_path, count):
    metadata = pick(source, tmp_path / "out", count)
    chosen = [i * 64 // count for i in range(count)]
    every, picked = read_features(source), read_features(tmp_path / "out")
    assert_equal_arrays({n: x[chosen] for n, x in every.items()}, picked)
    assert metadata.new_number_of_samples == count


def test_more_picked_than_there_are_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="number of records, 64. Received: num_e.*=65"):
        pick(source, tmp_path / "out", 65)


def test_packed_records_are_picked(tfrecords, tmp_path):
    pack_config = PackDataConfig(
        input_dir=str(tfrecords), output_dir=str(tmp_path / "p"), num_processes=1
    )
    total = pack_records(pack_config).new_number_of_samples
    metadata = pick(tmp_path / "p", tmp_path / "out", 5, num_shards=2)
    every, picked = read_features(tmp_path / "p"), read_features(tmp_path / "out")
    chosen = [i * total // 5 for i in range(5)]
    assert_equal_arrays({n: x[chosen] for n, x in every.items()}, picked)
    assert metadata.packed
    assert metadata.original_number_of_samples == np.sum(
        picked["next_sentence_weights"] > 0
    )


def test_bytes_do_not_depend_on_the_number_of_processes(source, tmp_path):
    made = []
    for number in (1, 2):
        config = ChopDataConfig(
            input_dir=str(source),
            output_dir=str(tmp_path / str(number)),
            num_shards=3,
            num_processes=number,
        )
        made.append(chop_records(config).shards)
    assert made[0] == made[1]


def test_an_interrupted_copy_resumes(source, tmp_path, monkeypatch):
    config = ChopDataConfig(
        input_dir=str(source),
        output_dir=str(tmp_path / "out"),
        num_shards=3,
        num_processes=1,
    )
    real, names = convert_command.copy_shard, []

    def fail_at_the_third(files, numbers, path, form):
        names.append(path.name)
        if len(names) == 3:
            raise RunError("the power failed")
        return real(files, numbers, path, form)

    monkeypatch.setattr(convert_command, "copy_shard", fail_at_the_third)
    with pytest.raises(RunError, match="the power failed"):
        chop_records(config)
    chop_records(config)
    assert len(names) == len(set(names)) + 1 == 4
    assert_equal_arrays(read_features(source), read_features(tmp_path / "out"))


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(SIZES, st.integers(1, 9), st.integers(0, 1000), st.booleans())
def test_any_set_is_converted_and_chopped_without_loss(
    tmp_path_factory, sizes, num_shards, seed, variable_length
):
    folder = tmp_path_factory.mktemp("any")
    (folder / "in").mkdir()
    for number, size in enumerate(sizes):
        write_records(folder / "in" / f"part-{number}", list(examples_of(size, seed)))
    convert(folder / "in", folder / "h", variable_length=variable_length)
    config = ChopDataConfig(
        input_dir=str(folder / "h"),
        output_dir=str(folder / "c"),
        num_shards=min(num_shards, sum(sizes)),
        num_processes=1,
    )
    chop_records(config)
    assert_equal_arrays(read_features(folder / "in"), read_features(folder / "c"))


@pytest.mark.parametrize(
    "options",
    [
        {"format": "tfrecord", "variable_length": True},
        {"format": "tfrecord", "compression": "gzip"},
        {"format": "arrow"},
        {"compression": "lzf"},
    ],
)
def test_impossible_forms_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        ConvertDataConfig(input_dir="a", output_dir="b", **options)
