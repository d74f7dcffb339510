import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from crashing import crash_points

from bert_tf.data.records import record_index
from bert_tf.data.records.record_index import RecordIndex, record_files, scan_offsets
from bert_tf.errors import CorruptRecordError


@pytest.fixture
def copied(tiny_records, tmp_path):
    """A copy of the tiny records that may be damaged."""
    return shutil.copytree(tiny_records, tmp_path / "copy")


def test_records_are_those_that_tensorflow_reads(tiny_records):
    files = record_files(tiny_records)
    expected = [r.numpy() for r in tf.data.TFRecordDataset(files)]
    index = RecordIndex(files)
    assert len(index) == len(expected) == 150
    assert index.read(np.arange(150)) == expected
    assert index.read(np.asarray([149, 0, 60])) == [expected[i] for i in (149, 0, 60)]


def test_a_location_names_file_record_and_offset(tiny_records):
    files = record_files(tiny_records)
    place = RecordIndex(files).place(61)
    assert place.path == files[1]
    assert place.record == 1
    first = next(iter(tf.data.TFRecordDataset(files[1]))).numpy()
    assert place.offset == len(first) + 16  # 12 bytes before the data, 4 after


def test_offsets_of_a_file_that_another_replaced_are_not_used(copied, tmp_path):
    """Of the same size and time, as a copy that keeps times may be."""
    cache = str(tmp_path / "cache")
    path = copied / "part-0.tfrecord"
    before = RecordIndex([str(path)], cache)
    status = path.stat()
    records = before.read(np.arange(len(before)))
    with tf.io.TFRecordWriter(str(tmp_path / "other")) as writer:
        for record in reversed(records):
            writer.write(record)
    (tmp_path / "other").replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = RecordIndex([str(path)], cache)
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
    assert len(RecordIndex([str(path)], str(tmp_path))) == 60 - is_later


def test_offsets_that_a_killed_process_was_storing_are_stored_again(copied, tmp_path):
    cache = tmp_path / "cache"
    path = str(copied / "part-0.tfrecord")

    def prepare():
        shutil.rmtree(cache, ignore_errors=True)

    for _ in crash_points(cache, prepare, lambda: RecordIndex([path], str(cache))):
        assert len(RecordIndex([path], str(cache))) == 60
        assert [name.endswith(".npy") for name in os.listdir(cache)] == [True]


def test_offsets_are_kept_and_mapped(tiny_records, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    files = record_files(tiny_records)
    before = RecordIndex(files, cache)
    monkeypatch.setattr(record_index, "scan_offsets", None)  # must not be called
    after = RecordIndex(files, cache)
    assert len(before) == len(after) == 150
    assert before.read(np.arange(150)) == after.read(np.arange(150))


def test_kept_offsets_of_a_changed_file_are_not_used(copied, tmp_path):
    cache = str(tmp_path / "cache")
    RecordIndex(record_files(str(copied)), cache)
    shutil.copy(copied / "part-2.tfrecord", copied / "part-0.tfrecord")
    assert len(RecordIndex(record_files(str(copied)), cache)) == 130


def test_more_files_than_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(record_index, "_MAX_OPEN_FILES", 2)
    for number in range(5):
        with tf.io.TFRecordWriter(str(tmp_path / f"part-{number}")) as writer:
            writer.write(b"%d" % number)
    index = RecordIndex(record_files(str(tmp_path)))
    for _ in range(2):
        assert index.read(np.arange(5)) == [b"0", b"1", b"2", b"3", b"4"]
    index.close()


def test_empty_file_is_named(copied):
    path = copied / "part-1.tfrecord"
    path.write_bytes(b"")
    with pytest.raises(CorruptRecordError, match=f"{path} is empty"):
        RecordIndex(record_files(str(copied)))


@pytest.mark.parametrize("cut", [1, 4, 5, 100])
def test_truncated_file_is_named_with_record_and_offset(copied, cut):
    path = copied / "part-1.tfrecord"
    last = int(scan_offsets(str(path))[-2])
    path.write_bytes(path.read_bytes()[:-cut])
    pattern = f"{path}, record 49, byte offset {last}: the file of .* is truncated"
    with pytest.raises(CorruptRecordError, match=pattern):
        RecordIndex(record_files(str(copied)))


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
            RecordIndex([str(path)]).read(np.asarray([3]))


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "notes"
    path.write_text("This is not a record file at all.")
    with pytest.raises(CorruptRecordError, match="not an uncompressed TFRecord file"):
        RecordIndex([str(path)])


def test_folders_may_be_listed_and_matched(tiny_records, copied):
    both = f"{tiny_records},{copied.parent}/co*"
    assert len(record_files(both)) == 6


def test_a_file_that_is_named_twice_is_refused(tiny_records):
    with pytest.raises(FileExistsError, match="names a file twice"):
        record_files(f"{tiny_records},{tiny_records}/part-0*")


def test_a_hard_link_to_a_file_of_records_is_refused(tiny_records, tmp_path):
    for path in Path(tiny_records).iterdir():
        os.link(path, tmp_path / f"copy-{path.name}")
    with pytest.raises(FileExistsError, match="names a file twice.*remove the link"):
        record_files(f"{tiny_records},{tmp_path}")


def test_files_that_are_no_records_are_named(copied, capsys):
    folder = Path(copied)
    for name in ("notes.txt", "_SUCCESS", "data.md5"):
        (folder / name).write_text("x")
    files = record_files(str(folder))
    assert "3 entries are not read: _SUCCESS, data.md5, notes.txt" in (
        capsys.readouterr().err
    )
    assert not any(path.endswith(("txt", "SUCCESS", "md5")) for path in files)


def test_commas_and_brackets_may_be_in_names_of_folders(tiny_records, tmp_path):
    folder = shutil.copytree(tiny_records, tmp_path / "a,b[1]")
    assert len(record_files(f"{folder}")) == 3
    assert len(record_files(f"{folder}/part*,{tiny_records}")) == 6


def test_metadata_next_to_a_folder_is_not_read_as_records(tiny_records, tmp_path):
    shutil.copytree(tiny_records, tmp_path / "rec")
    (tmp_path / "rec_metadata.json").write_text("{}")
    assert len(record_files(f"{tmp_path}/rec*")) == 3


def test_a_folder_may_have_brackets_in_its_name(tiny_records, tmp_path):
    folder = shutil.copytree(tiny_records, tmp_path / "set[1]")
    assert len(record_files(str(folder))) == 3


def test_an_empty_list_is_refused():
    with pytest.raises(FileNotFoundError, match="folder of records must be given"):
        record_files(" , ")


def test_cut_offsets_in_the_cache_are_made_again(tiny_records, tmp_path):
    cache = tmp_path / "cache"
    files = record_files(tiny_records)
    RecordIndex(files, str(cache))
    for stored in cache.iterdir():
        stored.write_bytes(stored.read_bytes()[:50])
    assert len(RecordIndex(files, str(cache))) == 150


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        record_files(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="holds no record files"):
        record_files(str(tmp_path))
