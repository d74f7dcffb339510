import dataclasses
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import make_example, write_records
from data.shared import LIMITS, read_features

from bert_tf.config.data import IndexDataConfig, PackDataConfig, ShowDataConfig
from bert_tf.data.commands.index import index_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.commands.show import describe_records
from bert_tf.data.records import record_index
from bert_tf.data.records.metadata import (
    described_path,
    metadata_file,
    read_metadata,
    write_metadata,
)
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_set import (
    NO_LIMITS,
    file_format,
    open_parser,
    open_records,
)
from bert_tf.errors import CorruptRecordError


@pytest.fixture
def folder(tmp_path):
    """Three files of ten records."""
    folder = tmp_path / "records"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(3):
        examples = [make_example(rng) for _ in range(10)]
        write_records(folder / f"part-{number}", examples)
    return folder


@pytest.mark.parametrize("num_unmasked", [9, 30])
def test_records_without_masks_are_pointed_out(tmp_path, num_unmasked, capsys):
    rng = np.random.default_rng(1)
    examples = []
    while len(examples) < 30:
        example = make_example(rng)
        if len(examples) < num_unmasked:
            example["masked_lm_weights"] = [0.0] * 4
        elif not any(example["masked_lm_weights"]):
            continue
        examples.append(example)
    (tmp_path / "records").mkdir()
    write_records(tmp_path / "records" / "part-0", examples)
    assert len(open_records(str(tmp_path / "records"), LIMITS)) == 30
    said = capsys.readouterr().err
    assert ("100.0% of the records of" in said) == (num_unmasked == 30)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("masked_lm_weights", [0.0] * 4, "50.0% of the records of .* no masked token"),
        ("masked_lm_positions", [0, 3, 0, 0], "50.0% of .* the first token"),
        ("input_mask", [0] * 16, "50.0% of .* only zeros as input_mask"),
        ("next_sentence_labels", [1], "100.0% of .* next_sentence_labels=1"),
        ("next_sentence_labels", [0], "100.0% of .* next_sentence_labels=0"),
    ],
)
def test_records_that_train_nothing_are_pointed_out(
    tmp_path, capsys, name, values, message
):
    rng = np.random.default_rng(1)
    examples = [make_example(rng) for _ in range(20)]
    for number, example in enumerate(examples):
        example["masked_lm_positions"] = [2, 3, 0, 0]
        example["masked_lm_weights"] = [1.0, 1.0, 0.0, 0.0]
        example["next_sentence_labels"] = [number % 2]
    (tmp_path / "good").mkdir()
    write_records(tmp_path / "good" / "part-0", examples)
    for example in examples[:: 1 if name == "next_sentence_labels" else 2]:
        example[name] = values
    (tmp_path / "bad").mkdir()
    write_records(tmp_path / "bad" / "part-0", examples)
    open_records(str(tmp_path / "good"), LIMITS)
    assert "warning" not in capsys.readouterr().err
    open_records(str(tmp_path / "bad"), LIMITS)
    assert re.search(f"warning: {message}", capsys.readouterr().err)


@pytest.mark.parametrize("change", ["missing", "more", "damaged metadata", "shorter"])
def test_the_advice_about_other_files_than_listed_works(folder, change):
    index_records(IndexDataConfig(input_dir=str(folder)))
    path = folder / "part-1"
    content = path.read_bytes()
    if change == "missing":
        path.unlink()
    elif change == "more":
        (folder / "part-9").write_bytes(content)
    elif change == "shorter":
        path.write_bytes((folder / "part-0").read_bytes() + content)
    else:
        with open(metadata_file(folder), "w") as file:
            file.write("{")
    advice = f"data index --input_dir={folder} --overwrite"
    with pytest.raises((CorruptRecordError, ValueError), match=advice):
        open_records(str(folder), LIMITS)
    index_records(IndexDataConfig(input_dir=str(folder), overwrite=True))
    expected = {"missing": 20, "more": 40, "shorter": 40, "damaged metadata": 30}
    assert len(open_records(str(folder), LIMITS)) == expected[change]


@pytest.fixture
def hdf5_dir(tiny_records, tmp_path):
    """The tiny records, written with h5py."""
    features = open_records(tiny_records, LIMITS).parser(np.arange(150))
    names = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions")
    folder = tmp_path / "set"
    folder.mkdir()
    for number, rows in enumerate((slice(0, 90), slice(90, 150))):
        with h5py.File(folder / f"part_{number}_of_2.hdf5", "w") as file:
            for name in (*names, "masked_lm_ids"):
                file[name] = features[name][rows]
            file["next_sentence_labels"] = features["next_sentence_labels"][rows, 0]
    return folder


def test_the_content_decides_and_not_the_name(hdf5_dir, tiny_records, tmp_path):
    renamed = tmp_path / "part-0.tfrecord"
    (hdf5_dir / "part_0_of_2.hdf5").rename(renamed)
    assert file_format(str(renamed)) == "hdf5"
    assert file_format(record_files(tiny_records)[0]) == "tfrecord"


def test_both_formats_have_the_same_numbers(hdf5_dir, tiny_records):
    parsers = [
        open_parser(record_files(str(folder)), NO_LIMITS)
        for folder in (tiny_records, hdf5_dir)
    ]
    assert [parser.index.format for parser in parsers] == ["tfrecord", "hdf5"]
    numbers = np.array([149, 3, 90, 89])
    first, second = (parser(numbers) for parser in parsers)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_both_formats_in_a_set_are_refused(hdf5_dir, tiny_records):
    with pytest.raises(CorruptRecordError, match="cannot be mixed.*data convert"):
        open_records(f"{tiny_records},{hdf5_dir}", LIMITS)


def test_hdf5_files_are_indexed_and_then_checked(hdf5_dir):
    metadata = index_records(IndexDataConfig(input_dir=str(hdf5_dir)))
    assert metadata.format == "hdf5"
    assert [shard.records for shard in metadata.shards] == [90, 60]
    assert len(open_records(str(hdf5_dir), LIMITS)) == 150
    (hdf5_dir / "part_1_of_2.hdf5").unlink()
    with pytest.raises(
        CorruptRecordError, match="lists the file part_1_of_2.hdf5, which is missing"
    ):
        open_records(str(hdf5_dir), LIMITS)


def test_the_metadata_of_each_file_is_looked_for_once(hdf5_dir, monkeypatch):
    looked = []

    def look(path):
        looked.append(path)
        return described_path(path)

    monkeypatch.setattr(record_index, "described_path", look)
    for path in sorted(hdf5_dir.iterdir()):
        index_records(IndexDataConfig(input_dir=str(path)))
    looked.clear()
    found = open_records(str(hdf5_dir), LIMITS)
    assert [*found.metadata] == looked == found.index.files


def test_metadata_of_another_format_is_refused(hdf5_dir):
    text = '{"avg_seq_per_sample": 1.0, "packed": false, "format": "tfrecord"}'
    (hdf5_dir.parent / "set_metadata.json").write_text(text)
    with pytest.raises(CorruptRecordError, match="format=tfrecord.*format=hdf5"):
        open_records(str(hdf5_dir), LIMITS)


def test_records_are_shown_alike(hdf5_dir, tiny_records, vocab_file):
    shown = [
        [
            "\n".join(text.splitlines()[1:])  # The first line is the location.
            for text in describe_records(
                ShowDataConfig(input_dir=str(folder), vocab_file=vocab_file)
            )
        ]
        for folder in (tiny_records, hdf5_dir)
    ]
    assert len(shown[0]) == 2
    assert shown[0] == shown[1]


@pytest.mark.slow
def test_tfrecords_are_opened_without_the_modules_for_hdf5(tiny_records):
    code = (
        "import sys\n"
        "from bert_tf.data.records.record_set import NO_LIMITS, open_parser\n"
        "from bert_tf.data.records.record_index import record_files\n"
        f"open_parser(record_files({tiny_records!r}), NO_LIMITS)\n"
        "hdf5 = 'bert_tf.data.records.hdf5_'\n"
        "assert not any(name.startswith(hdf5) for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def packed_folders(tmp_path):
    """Two folders of packed records: of 2 and of 3 sequences in a row at most."""
    rng, settings = np.random.default_rng(3), {"num_processes": 1}
    for name, length, count in (("a", 10, 30), ("b", 8, 20)):
        folder = tmp_path / f"plain-{name}"
        folder.mkdir()
        examples = [make_example(rng, max_seq_length=length) for _ in range(count)]
        for example in examples:
            for feature in ("input_ids", "input_mask", "segment_ids"):
                example[feature] += [0] * (24 - length)
        write_records(folder / "part-0", examples)
        settings |= {"input_dir": str(folder), "output_dir": f"{tmp_path}/{name}"}
        pack_records(PackDataConfig(**settings))
    return tmp_path


def test_packed_folders_may_have_room_for_different_numbers(packed_folders):
    """Rows of both are read together, padded to the wider ones."""
    alone = [read_features(packed_folders / name) for name in "ab"]
    widths = [x["masked_lm_ids"].shape[1] for x in alone]
    counts = [x["next_sentence_labels"].shape[1] for x in alone]
    assert widths[0] != widths[1] or counts[0] != counts[1]
    both = f"{packed_folders}/a,{packed_folders}/b"
    mixed = open_records(both, LIMITS).parser
    sizes = [len(x["input_ids"]) for x in alone]
    order = np.random.default_rng(0).permutation(sum(sizes))
    features = mixed(order)
    for name in alone[0]:
        expected = np.zeros((sum(sizes), max(x[name].shape[1] for x in alone)))
        expected[: sizes[0], : alone[0][name].shape[1]] = alone[0][name]
        expected[sizes[0] :, : alone[1][name].shape[1]] = alone[1][name]
        np.testing.assert_array_equal(features[name], expected[order])
    few = mixed(np.arange(3))  # All of one folder.
    assert few["masked_lm_ids"].shape == (3, max(widths))


def test_a_mixture_is_compared_with_its_most_predictions(packed_folders):
    sets = f"{packed_folders}/a:0.7,{packed_folders}/b:0.3"
    for name, predictions in (("a", 4), ("b", 8)):
        about = read_metadata(packed_folders / name)
        about = dataclasses.replace(about, max_predictions_per_seq=predictions)
        write_metadata(packed_folders / name, about)
    with pytest.raises(CorruptRecordError, match="must be 8, that of the records"):
        open_records(sets, LIMITS, max_predictions_per_seq=4, may_have_weights=True)
    open_records(sets, LIMITS, max_predictions_per_seq=8, may_have_weights=True)


def test_packed_files_of_one_folder_have_the_same_lengths(packed_folders):
    other = packed_folders / "b" / os.listdir(packed_folders / "b")[0]
    shutil.copy(other, packed_folders / "a" / "part-9")
    with pytest.raises(CorruptRecordError, match="must have the same lengths"):
        open_records(f"{packed_folders}/a", LIMITS)


def test_the_sequences_per_record_of_weighted_sets_are_those_of_the_mixture(
    packed_folders,
):
    sets = f"{packed_folders}/a:1,{packed_folders}/b:3"
    averages = [
        read_metadata(packed_folders / name).avg_seq_per_sample for name in "ab"
    ]
    records = open_records(sets, LIMITS, may_have_weights=True)
    expected = 0.25 * averages[0] + 0.75 * averages[1]
    assert records.avg_seq_per_sample == pytest.approx(expected)
    sizes = [len(open_records(f"{packed_folders}/{x}", LIMITS)) for x in "ab"]
    assert [(s.num_records, s.parts) for s in records.shares] == [
        *((sizes[0], 1), (sizes[1], 3))
    ]


def test_the_weight_of_a_single_set_is_logged_as_without_effect(tiny_records):
    records = open_records(f"{tiny_records}:2", LIMITS, may_have_weights=True)
    assert not records.shares and "no effect" in records.notes[0]
