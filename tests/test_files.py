import os
import resource
import stat

import numpy as np
import pytest
from crashing import crash_points

from bert_tf import files
from bert_tf.data.output_files import FileWriter
from bert_tf.errors import RunError, one_line
from bert_tf.tf_checkpoint_writer import save_tf


def test_a_write_that_is_killed_anywhere_leaves_the_old_or_the_new(tmp_path):
    path = tmp_path / "name.json"

    def prepare():
        files.write_whole(path, "old")

    for _ in crash_points(tmp_path, prepare, lambda: files.write_whole(path, "new")):
        assert path.read_text() in ("old", "new")
        files.write_whole(path, "next")
        assert os.listdir(tmp_path) == ["name.json"]


def test_sweeping_a_folder_removes_what_a_killed_write_of_any_name_left(tmp_path):
    for number in crash_points(
        tmp_path, lambda: None, lambda: files.write_whole(tmp_path / "a.b", "new")
    ):
        files.remove_unfinished(tmp_path)
        left = os.listdir(tmp_path)
        assert left in ([], ["a.b"]), number
    assert left == ["a.b"]


def test_a_temporary_folder_of_a_killed_process_is_removed_by_the_next(tmp_path):
    target = tmp_path / "records"

    def make():
        with files.temporary_folder(target) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "part").write_text("1")
            os.replace(folder, target)

    for _ in crash_points(tmp_path, lambda: None, make):
        with files.temporary_folder(target):
            assert len(set(os.listdir(tmp_path)) - {"records"}) == 1
        assert set(os.listdir(tmp_path)) <= {"records"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a/B.CSV.gz", ".csv"),
        ("b.tsv", ".tsv"),
        ("c.d/e.GZ", ""),
        ("eng.train", ".train"),
    ],
)
def test_an_extension_is_that_of_the_unpacked_file(name, wanted):
    assert files.extension(name) == wanted


def test_what_another_process_is_writing_stays(tmp_path):
    with files.whole_file(tmp_path / "a") as file:
        file.write(b"1")
        files.remove_unfinished(tmp_path)
        files.write_whole(tmp_path / "a", "2")
        assert len(os.listdir(tmp_path)) == 2
    assert (tmp_path / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["a"]


def test_a_user_s_files_of_like_names_stay(tmp_path):
    names = ["a.tmp", ".a.tmp", ".a.12345678.tmp", ".a.bert_tf.tmp"]
    names += ["a.12345678.bert_tf.tmp", ".a.UPPERCAS.bert_tf.tmp"]
    names += [".a.12345678.bert_tf.tmp.txt", ".a.123.bert_tf.tmp"]
    for name in names:
        (tmp_path / name).touch()
    files.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_link_of_a_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("1")
    (tmp_path / ".a.12345678.bert_tf.tmp").symlink_to(tmp_path / "target")
    files.remove_unfinished(tmp_path)
    assert (tmp_path / "target").read_text() == "1"


def test_a_file_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), files.whole_file(tmp_path / "a") as file:
        file.write(b"1")
        raise ValueError
    assert not os.listdir(tmp_path)


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    files.write_whole(tmp_path / "whole", "1")
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("plain", "whole")]
    assert modes[0] == modes[1]


def test_the_disk_has_a_file_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut could leave an empty file of that name."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("folder" if is_folder else "file")
        fsync(descriptor)

    def replaced(source, target):
        calls.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    files.write_whole(tmp_path / "a", "1")
    assert calls == ["file", "name", "folder"]


def test_a_locked_folder_is_refused(tmp_path):
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    files.lock(first, "at work")
    with pytest.raises(RunError, match="Another process is at work"):
        files.lock(second, "at work")
    os.close(first)
    files.lock(second, "at work")
    os.close(second)


def test_a_folder_in_which_no_file_can_be_made_is_an_error():
    """In /proc the system says that the new file does not exist."""
    with pytest.raises(FileNotFoundError):
        files.write_whole("/proc/a", "1")


@pytest.mark.parametrize(
    "content, found",
    [
        (b"\n<!DOCTYPE html>\n<title>\xe2\x80\x93", "a page of HTML or XML"),
        (b"<?xml version='1.0'?>\r\n<Error>" + 40 * b"x", "a page of HTML or XML"),
        (b"<" + 62 * b"x" + b"\xe2\x80\x93", "a page of HTML or XML"),
        (b"<<@\xbf<<Z=", ""),  # Two float32.
        (b" <" + bytes(62), ""),
        (b"", "empty"),
    ],
)
def test_a_page_instead_of_a_file_is_named_but_not_weights(tmp_path, content, found):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert files.placeholder(path) == found


def test_a_varint_is_that_of_the_documentation_of_protocol_buffers():
    assert files.varint(150) == b"\x96\x01"
    found = [files.varint(n) for n in (0, 1, 127, 128)]
    assert found == [b"\0", b"\1", b"\x7f", b"\x80\1"]


def _write_whole(path):
    with files.whole_file(path) as file:
        file.write(b"1" * 2000)


def _append(path):
    with FileWriter(path) as file:
        file.append(b"1" * 2000)


def _save_array(path):
    with files.whole_file(path) as file:
        files.save_array(file, np.zeros(2000))


def _save_checkpoint(path):
    save_tf(str(path), {"a": np.zeros(2000, np.float32)})


@pytest.mark.parametrize(
    "write", [_write_whole, _append, _save_array, _save_checkpoint]
)
def test_a_file_for_which_there_is_no_room_is_named(write, tmp_path):
    """The system's own error has no path."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            write(tmp_path / "out.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    start = f"{tmp_path}/out.bin cannot be read or written: File too large."
    assert one_line(raised.value).startswith(start)
    assert os.listdir(tmp_path) == []


def test_a_saved_array_is_read_by_numpy(tmp_path):
    array = np.arange(5000.0).reshape(50, 100)
    with files.whole_file(tmp_path / "a.npy") as file:
        files.save_array(file, array)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
