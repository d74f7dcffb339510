"""Commands that read records refuse those that a training would refuse."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import make_example, write_records

from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig
from bert_tf.config.data import IndexDataConfig, PackDataConfig, ShowDataConfig
from bert_tf.data.commands.convert import chop_records, convert_records, pick_records
from bert_tf.data.commands.index import index_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.commands.show import describe_records
from bert_tf.data.records.metadata import metadata_file, read_metadata, write_metadata
from bert_tf.data.records.tfrecord import scan_offsets
from bert_tf.errors import CorruptRecordError

COMMANDS = {
    "pack": lambda **o: pack_records(PackDataConfig(num_processes=1, **o)),
    "convert": lambda **o: convert_records(ConvertDataConfig(num_processes=1, **o)),
    "chop": lambda **o: chop_records(
        ChopDataConfig(num_shards=2, num_processes=1, **o)
    ),
    "pick_eval": lambda **o: pick_records(
        PickEvalConfig(num_examples=5, num_processes=1, **o)
    ),
}


@pytest.fixture
def folder(tmp_path):
    """Three files of ten records, with metadata; the first is valid in every test."""
    folder = tmp_path / "records"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(3):
        examples = [make_example(rng) for _ in range(10)]
        write_records(folder / f"part-{number}", examples)
    index_records(IndexDataConfig(input_dir=str(folder)))
    return folder


@pytest.fixture(params=[*COMMANDS, "show"])
def command(request, folder, vocab_file, tmp_path):
    """Runs a command on the folder, with output that must not be left behind."""

    def run():
        if request.param == "show":
            config = ShowDataConfig(input_dir=str(folder), vocab_file=vocab_file)
            return list(describe_records(config))
        output = tmp_path / "output"
        return COMMANDS[request.param](input_dir=str(folder), output_dir=str(output))

    return run


def assert_refused(command, folder, message):
    with pytest.raises(CorruptRecordError, match=message):
        command()
    left = {path.name for path in folder.parent.iterdir()}
    assert left == {"records", "records_metadata.json"}


def test_what_is_not_damaged_is_accepted(command):
    assert command()


def test_a_file_that_is_cut_between_records_is_refused(command, folder):
    path = folder / "part-1"
    path.write_bytes(path.read_bytes()[: scan_offsets(str(path))[7]])
    message = f"{path} must hold 10 records in .* Received: 7 records"
    assert_refused(command, folder, message)


def test_a_missing_file_is_refused(command, folder):
    (folder / "part-1").unlink()
    assert_refused(command, folder, "lists the file part-1, which is missing")


def test_metadata_of_other_records_is_refused(command, folder):
    metadata = dataclasses.replace(read_metadata(folder), max_seq_length=32)
    write_metadata(folder, metadata)
    assert_refused(command, folder, "states max_seq_length=32")


def test_a_flipped_bit_is_refused_by_record_and_offset(command, folder):
    """Of a file that all commands read; not all of them read the record."""
    path = folder / "part-0"
    content = bytearray(path.read_bytes())
    offset = scan_offsets(str(path))[7]
    content[offset + 40] ^= 1
    path.write_bytes(content)
    where = f"{path}, record 7, byte offset {offset}: the record is damaged"
    assert_refused(command, folder, where)


def test_other_records_of_the_same_size_are_refused(command, folder):
    path = folder / "part-0"
    offsets, content = scan_offsets(str(path)), path.read_bytes()
    parts = [content[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
    path.write_bytes(b"".join(reversed(parts)))
    assert_refused(command, folder, rf"{path} must have the checksum \(CRC32C\)")


def test_a_weight_of_nan_is_refused(command, folder):
    """Its file has the size that the metadata states."""
    write_wrong(folder, "masked_lm_weights", np.nan)
    where = f"{path_of(folder)}, record 0, byte offset 0: `masked_lm_weights` must be"
    assert_refused(command, folder, where)


def test_an_id_beyond_the_vocabulary_of_the_metadata_is_refused(command, folder):
    write_wrong(folder, "input_ids", 30)
    index_records(IndexDataConfig(input_dir=str(folder), overwrite=True))
    metadata = dataclasses.replace(read_metadata(folder), vocab_size=30)
    write_metadata(folder, metadata)
    where = f"{path_of(folder)}, record 0, byte offset 0: `input_ids` must be in"
    assert_refused(command, folder, where)


def test_index_says_that_the_vocabulary_is_lost_with_damaged_metadata(folder, caplog):
    index_records(IndexDataConfig(input_dir=str(folder), overwrite=True))
    assert not caplog.messages
    path = metadata_file(folder)
    Path(path).write_text("{")
    index_records(IndexDataConfig(input_dir=str(folder), overwrite=True))
    [message] = caplog.messages
    assert message.startswith(f"{path} was not valid: the new one names neither")
    assert read_metadata(folder).new_number_of_samples == 30


def write_wrong(folder, name, value):
    """The first file, with a wrong value in its first record."""
    rng = np.random.default_rng(1)
    examples = [make_example(rng) for _ in range(10)]
    examples[0][name][0] = value
    write_records(folder / "part-0", examples)


def path_of(folder):
    return re.escape(str(folder / "part-0"))


def test_a_mask_with_a_hole_is_named_by_pack(folder, tmp_path):
    rng = np.random.default_rng(2)
    examples = [make_example(rng) for _ in range(10)]
    examples[3]["input_mask"][1] = 0
    write_records(folder / "part-0", examples)
    index_records(IndexDataConfig(input_dir=str(folder), overwrite=True))
    config = PackDataConfig(input_dir=str(folder), output_dir=str(tmp_path / "output"))
    where = f"{path_of(folder)}, record 3, byte offset [0-9]+: `input_mask` must be"
    with pytest.raises(CorruptRecordError, match=where):
        pack_records(config)
