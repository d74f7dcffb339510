import hashlib
import os
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from crashing import crash_points

from bert_tf.data.records import record_index, tfrecord
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.tfrecord import (
    RecordWriter,
    TfrecordIndex,
    scan_offsets,
    shard_name,
)
from bert_tf.errors import CorruptRecordError


def test_records_are_those_that_tensorflow_reads(tiny_records):
    files = record_files(tiny_records)
    expected = [r.numpy() for r in tf.data.TFRecordDataset(files)]
    index = TfrecordIndex(files)
    assert len(index) == len(expected) == 150
    assert index.read(np.arange(150)) == expected
    assert index.read(np.asarray([149, 0, 60])) == [expected[i] for i in (149, 0, 60)]


def test_a_location_names_file_record_and_offset(tiny_records):
    files = record_files(tiny_records)
    location = TfrecordIndex(files).location(61)
    assert location.path == files[1]
    assert location.record == 1
    first = next(iter(tf.data.TFRecordDataset(files[1]))).numpy()
    assert location.offset == len(first) + 16  # 12 bytes before the data, 4 after


def test_offsets_of_a_file_that_another_replaced_are_not_used(copied, tmp_path):
    """Of the same size and time, as a copy that keeps times may be."""
    cache = str(tmp_path / "cache")
    path = copied / "part-0.tfrecord"
    before = TfrecordIndex([str(path)], cache)
    status = path.stat()
    records = before.read(np.arange(len(before)))
    with tf.io.TFRecordWriter(str(tmp_path / "other")) as writer:
        for record in reversed(records):
            writer.write(record)
    (tmp_path / "other").replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = TfrecordIndex([str(path)], cache)
    assert after.read(np.arange(len(after))) == records[::-1]


@pytest.mark.parametrize("is_later", [True, False])
def test_offsets_of_an_earlier_version_are_used_if_later_than_the_file(
    copied, tmp_path, is_later
):
    """Its name for them, of path, size and time, may be that of a replaced file."""
    path = copied / "part-0.tfrecord"
    status = path.stat()
    state = f"{path}|{status.st_size}|{status.st_mtime_ns}"
    stored = tmp_path / f"{hashlib.sha256(state.encode()).hexdigest()}.npy"
    np.save(stored, scan_offsets(str(path))[:-1])  # One record less.
    os.utime(stored, ns=(status.st_ctime_ns + is_later,) * 2)
    assert len(TfrecordIndex([str(path)], str(tmp_path))) == 60 - is_later


def test_offsets_that_a_killed_process_was_storing_are_stored_again(copied, tmp_path):
    cache = tmp_path / "cache"
    path = str(copied / "part-0.tfrecord")

    def prepare():
        shutil.rmtree(cache, ignore_errors=True)

    for _ in crash_points(cache, prepare, lambda: TfrecordIndex([path], str(cache))):
        assert len(TfrecordIndex([path], str(cache))) == 60
        assert [name.endswith(".npy") for name in os.listdir(cache)] == [True]


def test_offsets_are_kept_and_mapped(tiny_records, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    files = record_files(tiny_records)
    before = TfrecordIndex(files, cache)
    monkeypatch.setattr(tfrecord, "scan_offsets", None)  # must not be called
    after = TfrecordIndex(files, cache)
    assert len(before) == len(after) == 150
    assert before.read(np.arange(150)) == after.read(np.arange(150))


def test_kept_offsets_of_a_changed_file_are_not_used(copied, tmp_path):
    cache = str(tmp_path / "cache")
    TfrecordIndex(record_files(str(copied)), cache)
    shutil.copy(copied / "part-2.tfrecord", copied / "part-0.tfrecord")
    assert len(TfrecordIndex(record_files(str(copied)), cache)) == 130


def test_more_files_than_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(record_index, "_MAX_OPEN_FILES", 2)
    for number in range(5):
        with tf.io.TFRecordWriter(str(tmp_path / f"part-{number}")) as writer:
            writer.write(b"%d" % number)
    index = TfrecordIndex(record_files(str(tmp_path)))
    for _ in range(2):
        assert index.read(np.arange(5)) == [b"0", b"1", b"2", b"3", b"4"]
    index.close()


def test_empty_file_is_named(copied):
    path = copied / "part-1.tfrecord"
    path.write_bytes(b"")
    with pytest.raises(CorruptRecordError, match=f"{path} is empty"):
        TfrecordIndex(record_files(str(copied)))


@pytest.mark.parametrize("cut", [1, 4, 5, 100])
def test_truncated_file_is_named_with_record_and_offset(copied, cut):
    path = copied / "part-1.tfrecord"
    last = int(scan_offsets(str(path))[-2])
    path.write_bytes(path.read_bytes()[:-cut])
    pattern = f"{path}, record 49, byte offset {last}: the file of .* is truncated"
    with pytest.raises(CorruptRecordError, match=pattern):
        TfrecordIndex(record_files(str(copied)))


def test_every_flipped_byte_of_a_record_is_found(copied):
    path = copied / "part-1.tfrecord"
    content = path.read_bytes()
    begin, end = map(int, scan_offsets(str(path))[3:5])
    pattern = f"{path}, record 3, byte offset {begin}: "
    for place in range(begin, end, 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CorruptRecordError, match=pattern):
            TfrecordIndex([str(path)]).read(np.asarray([3]))


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "notes"
    path.write_text("This is not a record file at all.")
    with pytest.raises(CorruptRecordError, match="not an uncompressed TFRecord file"):
        TfrecordIndex([str(path)])


def test_cut_offsets_in_the_cache_are_made_again(tiny_records, tmp_path):
    cache = tmp_path / "cache"
    files = record_files(tiny_records)
    TfrecordIndex(files, str(cache))
    for stored in cache.iterdir():
        stored.write_bytes(stored.read_bytes()[:50])
    assert len(TfrecordIndex(files, str(cache))) == 150


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
    assert writer.described({}).bytes == len(content)


def test_checksum_is_that_of_the_file(tmp_path):
    with RecordWriter(tmp_path / "ours") as writer:
        writer.write(b"one")
        writer.write(b"two")
    # TFRecord's own checksum of the file's bytes as one record, unmasked.
    with tf.io.TFRecordWriter(str(tmp_path / "whole")) as whole:
        whole.write((tmp_path / "ours").read_bytes())
    [masked] = struct.unpack("<I", (tmp_path / "whole").read_bytes()[-4:])
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    crc32c = (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
    assert writer.described({}).crc32c == f"{crc32c:08x}"


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


def test_file_is_given_up_on_a_full_disk(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with (
        pytest.raises(OSError, match="disk full"),
        RecordWriter(tmp_path / "a") as writer,
    ):
        writer.write(b"one")
    assert list(tmp_path.iterdir()) == []


def test_shards_are_named_by_number_and_count():
    assert shard_name(0, 4) == "part-00000-of-00004.tfrecord"
