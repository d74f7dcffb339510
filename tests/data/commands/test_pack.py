import dataclasses
import json
import os

import numpy as np
import pytest
from conftest import make_example, write_records
from data.shared import LIMITS, read_features

from bert_tf.config.data import IndexDataConfig, PackDataConfig
from bert_tf.data.commands import pack as pack_command
from bert_tf.data.commands.index import index_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.packing.layout import pack_examples
from bert_tf.data.records.metadata import (
    metadata_file,
    read_metadata,
    write_metadata,
)
from bert_tf.data.records.record_set import open_records
from bert_tf.errors import CorruptRecordError, RunError


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Two files of 120 records, 4 to 16 tokens."""
    folder = tmp_path_factory.mktemp("pack") / "unpacked"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(2):
        examples = []
        for _ in range(60):
            size = int(rng.choice([8, 10, 12, 16]))
            example = make_example(rng, max_seq_length=size)
            pad = [0] * (16 - size)
            for name in ("input_ids", "input_mask", "segment_ids"):
                example[name] = [*example[name][: size // 2], *[0] * (size // 2), *pad]
            keep = [p < size // 2 for p in example["masked_lm_positions"]]
            weights = example["masked_lm_weights"]
            count = sum(k and w > 0 for k, w in zip(keep, weights, strict=True))
            example["masked_lm_weights"] = [1.0] * count + [0.0] * (4 - count)
            examples.append(example)
        write_records(folder / f"part-{number}", examples)
    return str(folder)


def pack(unpacked, folder, **settings):
    config = PackDataConfig(
        input_dir=unpacked, output_dir=str(folder), num_processes=1, **settings
    )
    return pack_records(config)


@pytest.fixture(scope="module", params=[3, 2, 0], ids=["3", "2", "any"])
def packed(request, unpacked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "records"
    return pack(unpacked, folder, max_sequences_per_pack=request.param), str(folder)


def sequences_of(features):
    """Every sequence as (tokens, segments, masked places and ids, label), unpacked."""
    found = []
    for row in range(len(features["input_ids"])):
        count = int((features["next_sentence_weights"][row] > 0).sum())
        for slot in range(count):
            begin = int(features["next_sentence_positions"][row, slot])
            own = np.flatnonzero(features["input_mask"][row] == slot + 1)
            assert own[0] == begin
            assert list(features["positions"][row, own]) == list(range(len(own)))
            masks = [
                (int(p) - begin, int(i))
                for p, i, w in zip(
                    features["masked_lm_positions"][row],
                    features["masked_lm_ids"][row],
                    features["masked_lm_weights"][row],
                    strict=True,
                )
                if w > 0 and begin <= p < begin + len(own)
            ]
            found.append(
                (
                    tuple(features["input_ids"][row, own]),
                    tuple(features["segment_ids"][row, own]),
                    tuple(masks),
                    int(features["next_sentence_labels"][row, slot]),
                )
            )
    return sorted(found)


def test_every_sequence_is_packed_once_and_unchanged(unpacked, packed):
    _, folder = packed
    before = read_features(unpacked)
    after = read_features(folder)
    before["input_mask"] = (before["input_mask"] > 0).astype("i4")
    assert sequences_of(after) == sequences_of(before)


def test_metadata_counts_records_and_padding(packed):
    metadata, folder = packed
    records = open_records(folder, LIMITS)
    features = read_features(folder)
    tokens = (features["input_mask"] > 0).sum()
    assert metadata.original_number_of_samples == 120
    assert metadata.new_number_of_samples == len(records)
    assert metadata.avg_seq_per_sample == records.avg_seq_per_sample
    assert metadata.avg_seq_per_sample == 120 / len(records) > 1.2
    assert metadata.packing_efficiency == pytest.approx(tokens / (16 * len(records)))
    assert metadata.extra["sequences_dropped"] == 0
    assert metadata.extra["padding_tokens_packed_dataset"] == 16 * len(records) - tokens
    assert all(sum(s) <= 16 for s in metadata.extra["top_8_strategies"])
    assert read_metadata(folder) == metadata


def test_bytes_depend_on_the_seed_alone(unpacked, tmp_path):
    def contents(name, **settings):
        pack(unpacked, tmp_path / name, **settings)
        files = sorted(os.listdir(tmp_path / name))
        return [(tmp_path / name / file).read_bytes() for file in files]

    assert contents("a") == contents("b")
    assert contents("a2") != contents("c", seed=1)
    assert len(contents("d", num_shards=5)) == 5


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(
    unpacked, tmp_path, monkeypatch
):
    monkeypatch.setattr(pack_command, "_RECORDS_WORTH_A_WORKER", 1)
    monkeypatch.setattr(pack_command, "_ROWS_AT_ONCE", 16)
    folders = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        config = PackDataConfig(
            input_dir=unpacked, output_dir=str(folder), num_processes=count
        )
        pack_records(config)
        folders.append([f.read_bytes() for f in sorted(folder.iterdir())])
    assert folders[0] == folders[1]


def test_interrupted_packing_resumes_to_the_same_bytes(unpacked, tmp_path, monkeypatch):
    pack(unpacked, tmp_path / "whole", num_shards=5)
    real, calls = pack_command.pack_rows, []

    def fail_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise RunError("the power failed")
        return real(*arguments)

    monkeypatch.setattr(pack_command, "pack_rows", fail_at_the_fourth)
    with pytest.raises(RunError, match="the power failed"):
        pack(unpacked, tmp_path / "stopped", num_shards=5)
    assert not (tmp_path / "stopped").exists()
    pack(unpacked, tmp_path / "stopped", num_shards=5)
    assert len(calls) == 4 + 2
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "stopped" / path.name).read_bytes()
    mine, other = (read_metadata(tmp_path / name) for name in ("stopped", "whole"))
    assert mine == other
    monkeypatch.setattr(pack_command, "pack_rows", None)
    assert pack(unpacked, tmp_path / "stopped", num_shards=5) == other


@pytest.mark.parametrize("max_sequences", [3, 2, 0])
def test_examples_in_memory_are_packed_as_records_are(unpacked, max_sequences):
    before = read_features(unpacked)
    before["input_mask"] = (before["input_mask"] > 0).astype("i4")
    names = ("input_ids", "input_mask", "segment_ids", "next_sentence_labels")
    names += ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
    arrays = {name: before[name] for name in names}
    packed, assignment = pack_examples(arrays, max_sequences, seed=5)
    assert sequences_of(packed) == sequences_of(before)
    for row in range(assignment.num_rows):
        members, [count] = assignment.rows(row, row + 1)
        begins = packed["next_sentence_positions"][row]
        for slot, member in enumerate(members):
            length = before["input_mask"][member].sum()
            own = slice(begins[slot], begins[slot] + length)
            expected = before["input_ids"][member, :length]
            np.testing.assert_array_equal(packed["input_ids"][row, own], expected)
        assert packed["next_sentence_weights"][row].sum() == count


def test_examples_without_labels_are_packed(unpacked):
    features = read_features(unpacked)
    names = ("input_ids", "input_mask", "segment_ids")
    packed, _ = pack_examples({name: features[name] for name in names})
    assert "masked_lm_ids" not in packed
    assert "next_sentence_labels" not in packed
    assert packed["next_sentence_weights"].sum() == len(features["input_ids"])


def test_packed_records_without_metadata_are_refused_until_indexed(unpacked, tmp_path):
    metadata = pack(unpacked, tmp_path / "records")
    os.remove(metadata_file(tmp_path / "records"))
    with pytest.raises(CorruptRecordError, match="data index --input_dir=.*counts"):
        open_records(str(tmp_path / "records"), LIMITS)
    index_records(IndexDataConfig(input_dir=str(tmp_path / "records")))
    records = open_records(str(tmp_path / "records"), LIMITS)
    assert records.avg_seq_per_sample == metadata.avg_seq_per_sample
    again = read_metadata(tmp_path / "records")
    assert again.shards == metadata.shards
    assert again.packing_efficiency == metadata.packing_efficiency
    with pytest.raises(FileExistsError, match="--overwrite"):
        index_records(IndexDataConfig(input_dir=str(tmp_path / "records")))


def test_packed_records_that_are_indexed_anew_keep_their_predictions(
    unpacked, tmp_path
):
    folder = str(tmp_path / "records")
    metadata = pack(unpacked, folder)
    config = IndexDataConfig(input_dir=folder, overwrite=True)
    assert index_records(config).max_predictions_per_seq == 4
    # Metadata of records that are not packed, or longer, are about other ones.
    for changes in (
        {"packed": False, "avg_seq_per_sample": 1.0},
        {"max_seq_length": metadata.max_seq_length + 1},
    ):
        write_metadata(folder, dataclasses.replace(metadata, **changes))
        assert index_records(config).max_predictions_per_seq is None


def test_packed_and_unpacked_folders_cannot_be_mixed(unpacked, tmp_path):
    pack(unpacked, tmp_path / "records")
    with pytest.raises(CorruptRecordError, match="cannot be mixed"):
        open_records(f"{unpacked},{tmp_path}/records", LIMITS)


def test_packing_twice_is_refused(unpacked, tmp_path):
    pack(unpacked, tmp_path / "once")
    with pytest.raises(CorruptRecordError, match="packed records already"):
        pack(str(tmp_path / "once"), tmp_path / "twice")


@pytest.mark.parametrize(
    "changes, pattern",
    [
        ({"packed": False, "avg_seq_per_sample": 1.0}, "states packed=False"),
        ({"max_seq_length": 32}, "states max_seq_length=32, but .* have .*=16"),
        ({"max_sequences_per_pack": 9}, "states max_sequences_per_pack=9"),
    ],
)
def test_metadata_that_contradicts_the_records(unpacked, tmp_path, changes, pattern):
    pack(unpacked, tmp_path / "records")
    path = metadata_file(tmp_path / "records")
    values = json.load(open(path)) | changes
    json.dump(values, open(path, "w"))
    with pytest.raises(CorruptRecordError, match=pattern):
        open_records(str(tmp_path / "records"), LIMITS)


def test_records_of_the_older_packer_are_read(unpacked, tmp_path):
    """P + 3 predictions, sequence numbers as weights, metadata without our keys."""
    pack(unpacked, tmp_path / "ours")
    ours = open_records(str(tmp_path / "ours"), LIMITS)
    features = read_features(str(tmp_path / "ours"))
    order = ["input_ids", "input_mask", "segment_ids", "positions"]
    order += ["masked_lm_positions", "masked_lm_ids", "masked_lm_weights"]
    order += [f"next_sentence_{n}" for n in ("positions", "labels", "weights")]
    width = features["masked_lm_ids"].shape[1]
    folder = tmp_path / "theirs" / "training"
    folder.mkdir(parents=True)
    examples = []
    for row in range(len(ours)):
        example = {name: features[name][row].tolist() for name in order}
        for name in order[4:7]:
            example[name] += [0] * (width + 3 - len(example[name]))
        numbers = features["input_mask"][row][example["masked_lm_positions"]]
        weights = np.where(np.asarray(example["masked_lm_weights"]) > 0, numbers, 0)
        example["masked_lm_weights"] = weights.astype(float).tolist()
        examples.append(example)
    write_records(folder / "strategy_8_8_0_part_0", examples)
    average = 120 / len(ours)
    metadata = {"avg_seq_per_sample": average, "compression_ratio": 0.4}
    (tmp_path / "theirs" / "training_metadata.json").write_text(json.dumps(metadata))
    theirs = open_records(str(folder), LIMITS)
    read = read_features(str(folder))
    assert theirs.avg_seq_per_sample == average
    assert theirs.shape.max_predictions == width + 3
    assert sequences_of(read) == sequences_of(features)


def test_records_of_given_widths_are_padded_and_read(unpacked, tmp_path):
    config = PackDataConfig(
        input_dir=unpacked,
        output_dir=str(tmp_path / "habana"),
        max_sequences_per_pack=2,
        num_processes=1,
    )
    metadata = pack_records(config, widths=(4 + 3, 3))
    assert metadata.max_predictions_per_pack == 7
    assert metadata.max_sequences_per_pack == 3
    data = open_records(config.output_dir, LIMITS)
    assert (data.shape.max_predictions, data.shape.max_sequences) == (7, 3)
    narrow = dataclasses.replace(config, output_dir=str(tmp_path / "narrow"))
    pack_records(narrow)
    other = open_records(narrow.output_dir, LIMITS)
    every = np.arange(len(data))
    found, expected = data.parser(every), other.parser(every)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name][:, : array.shape[1]], array)
        assert not found[name][:, array.shape[1] :].any()


def test_packs_that_do_not_fit_given_widths_are_refused(unpacked, tmp_path):
    config = PackDataConfig(
        input_dir=unpacked, output_dir=str(tmp_path / "few"), num_processes=1
    )
    with pytest.raises(ValueError, match="masked tokens, but must have at most 2"):
        pack_records(config, widths=(2, 3))
    assert not (tmp_path / "few").exists()


def test_folder_of_other_widths_is_not_taken_for_done(unpacked, tmp_path):
    config = PackDataConfig(
        input_dir=unpacked, output_dir=str(tmp_path / "records"), num_processes=1
    )
    pack_records(config)
    with pytest.raises(FileExistsError, match="`output_dir` must not hold earlier"):
        pack_records(config, widths=(20, 3))
