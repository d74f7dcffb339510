"""Compressed record files are read as TensorFlow reads them, or refused by name."""

import gzip
import os
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from crashing import crash_points

from bert_tf.config.data import IndexDataConfig, PackDataConfig
from bert_tf.data.commands.index import index_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.records import gzip_files
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.data.records.tfrecord import TfrecordIndex, frame_record
from bert_tf.errors import CorruptRecordError

LIMITS = ValueLimits(vocab_size=30, type_vocab_size=2)


@pytest.fixture
def compressed(tiny_records, tmp_path):
    """The tiny records, each file written again by TensorFlow with compression."""
    folder = tmp_path / "train"
    folder.mkdir()
    for path in record_files(tiny_records):
        name = str(folder / os.path.basename(path))
        with tf.io.TFRecordWriter(name, tf.io.TFRecordOptions("GZIP")) as writer:
            for record in tf.data.TFRecordDataset(path):
                writer.write(record.numpy())
    return folder


@pytest.fixture
def one(compressed):
    return compressed / "part-1.tfrecord"


def refusal(path, cache, kind=CorruptRecordError):
    """The message about a file; nothing of it is left in the cache."""
    with pytest.raises(kind) as caught:
        TfrecordIndex([str(path)], str(cache))
    assert os.listdir(cache) == []
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize("has_cache", [True, False])
def test_records_are_those_that_tensorflow_reads(compressed, tmp_path, has_cache):
    files = record_files(str(compressed))
    expected = [r.numpy() for r in tf.data.TFRecordDataset(files, "GZIP")]
    index = TfrecordIndex(files, str(tmp_path / "cache") if has_cache else "")
    assert index.read(np.arange(150)) == expected
    assert index.location(61).path == files[1]
    temporary = index._paths[0]
    index.close()
    assert os.path.exists(temporary) == has_cache


def test_a_set_is_that_of_the_uncompressed_records(compressed, tiny_records, tmp_path):
    """Compressed and plain files may be mixed."""
    shutil.copy(record_files(tiny_records)[2], compressed / "part-2.tfrecord")
    ours = open_records(str(compressed), LIMITS, cache_dir=str(tmp_path / "cache"))
    expected = open_records(tiny_records, LIMITS)
    assert ours.sha256 == expected.sha256
    ours, expected = ours.parser(np.arange(150)), expected.parser(np.arange(150))
    for name, values in expected.items():
        np.testing.assert_array_equal(ours[name], values)


def test_files_are_unpacked_once_and_that_is_reported(
    compressed, tmp_path, monkeypatch, capsys
):
    files, cache = record_files(str(compressed)), str(tmp_path / "cache")
    before = TfrecordIndex(files, cache)
    text = "".join(capsys.readouterr())
    assert text.count("Unpacked 3 compressed record files to ") == 1
    monkeypatch.setattr(gzip_files, "_copy", None)  # Must not be called.
    after = TfrecordIndex(files, cache)
    assert before.read(np.arange(150)) == after.read(np.arange(150))
    assert capsys.readouterr() == ("", "")


def test_a_file_that_another_replaced_is_unpacked_again(compressed, one, tmp_path):
    files, cache = record_files(str(compressed)), str(tmp_path / "cache")
    TfrecordIndex(files, cache)
    shutil.copy(compressed / "part-0.tfrecord", one)
    assert len(TfrecordIndex(files, cache)) == 160


def test_what_a_killed_process_was_unpacking_is_unpacked_again(one, tmp_path):
    cache = tmp_path / "cache"

    def prepare():
        shutil.rmtree(cache, ignore_errors=True)

    for _ in crash_points(
        cache, prepare, lambda: TfrecordIndex([str(one)], str(cache))
    ):
        assert len(TfrecordIndex([str(one)], str(cache))) == 50
        names = {os.path.splitext(name)[1] for name in os.listdir(cache)}
        assert names == {".npy", ".unpacked"} and len(os.listdir(cache)) == 2


@pytest.mark.parametrize("place", [11, 30, 0.5, -9, -8, -1])
def test_a_cut_file_is_refused(one, tmp_path, place):
    content = one.read_bytes()
    one.write_bytes(content[: int(place * len(content)) if place == 0.5 else place])
    assert "cut or damaged" in refusal(one, tmp_path / "cache")


def test_a_flipped_bit_is_refused(one, tmp_path):
    content = one.read_bytes()
    for place in [*range(20, len(content), 97), *range(len(content) - 8, len(content))]:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        one.write_bytes(damaged)
        text = refusal(one, tmp_path / "cache")
        assert "cut or damaged" in text or "this is not a TFRecord" in text


def test_what_follows_the_compressed_data_is_refused(one, tmp_path):
    one.write_bytes(one.read_bytes() + b"more")
    assert "cut or damaged" in refusal(one, tmp_path / "cache")


def test_records_cut_before_they_were_compressed_are_named_as_that_file(one, tmp_path):
    one.write_bytes(gzip.compress(gzip.decompress(one.read_bytes())[:-5]))
    with pytest.raises(CorruptRecordError, match=f"{one}, record 49, .* is truncated"):
        TfrecordIndex([str(one)], str(tmp_path / "cache"))


@pytest.mark.parametrize("start", [b"", frame_record(b"one")])
def test_a_bomb_is_refused_at_its_first_byte_that_is_no_record(
    one, tmp_path, start, monkeypatch
):
    """1 GB of zeros in 1 MB."""
    block = gzip.compress(bytes(1 << 24))
    one.write_bytes(gzip.compress(start) + block * 64)
    started = time.monotonic()
    text = refusal(one, tmp_path / "cache")
    assert f"byte offset {len(start)}: this is not a TFRecord" in text
    assert time.monotonic() - started < 5  # Whole, it takes longer.


def test_a_disk_without_room_is_refused_before_it_is_full(one, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    free = gzip_files._RESERVE_BYTES + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    text = refusal(one, tmp_path / "cache", OSError)
    assert f"has {free:,} bytes free" in text


def test_an_uncompressed_file_whose_first_length_looks_like_gzip_is_read(tmp_path):
    path = tmp_path / "records"
    path.write_bytes(frame_record(bytes(0x088B1F)))
    assert path.read_bytes()[:3] == b"\x1f\x8b\x08"
    [record] = TfrecordIndex([str(path)]).read(np.asarray([0]))
    assert len(record) == 0x088B1F


def test_commands_read_compressed_records(compressed, tiny_records, tmp_path):
    metadata = index_records(IndexDataConfig(input_dir=str(compressed)))
    assert metadata.new_number_of_samples == 150
    sizes = [shard.bytes for shard in metadata.shards]
    assert sizes == [os.path.getsize(path) for path in record_files(str(compressed))]
    shards = []
    for number, folder in enumerate((str(compressed), tiny_records)):
        output = tmp_path / f"packed-{number}"
        config = PackDataConfig(
            input_dir=folder, output_dir=str(output), num_processes=1
        )
        pack_records(config)
        assert all(n.endswith(".tfrecord") for n in os.listdir(output))
        shards.append([open(path, "rb").read() for path in record_files(str(output))])
    assert shards[0] == shards[1]
