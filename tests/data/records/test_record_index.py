import os
import shutil
from pathlib import Path

import pytest

from bert_tf.data.records.record_index import record_files, record_sets


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
    assert files == record_files(str(folder))  # A run lists them more than once.
    [line] = capsys.readouterr().err.splitlines()
    assert "3 entries are not read: _SUCCESS, data.md5, notes.txt" in line
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


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        record_files(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="holds no record files. Make some"):
        record_files(str(tmp_path))


def test_the_folders_inside_that_hold_records_are_named(tiny_records, tmp_path):
    (tmp_path / "notes").mkdir()
    for name in ("train", "test"):
        shutil.copytree(tiny_records, tmp_path / name)
    advice = f"Its folders do: pass {tmp_path}/test or {tmp_path}/train."
    with pytest.raises(FileNotFoundError) as caught:
        record_files(str(tmp_path))
    assert str(caught.value).endswith(advice)


@pytest.fixture
def two(tiny_records, tmp_path):
    """Two folders of records."""
    for name in ("a", "b"):
        shutil.copytree(tiny_records, tmp_path / name)
    return tmp_path


def weighted(setting):
    sets = record_sets(setting, may_have_weights=True)
    return [(one.path, one.weight, len(one.files)) for one in sets]


def test_sets_may_have_weights(two):
    a, b = two / "a", two / "b"
    assert weighted(f"{a}:0.7, {b}:3") == [(f"{a}", "0.7", 3), (f"{b}", "3", 3)]
    assert weighted(f"{a}/part-[01]*:1,{b}:2") == [
        (f"{a}/part-[01]*", "1", 2),
        (f"{b}", "2", 3),
    ]
    assert weighted(f"{a},{b}") == [(f"{a}", "", 3), (f"{b}", "", 3)]
    (two / "a").rename(two / "x,y")
    assert weighted(f"{two}/x,y:1,{b}:2")[0] == (f"{two}/x,y", "1", 3)


def test_a_folder_whose_name_ends_like_a_weight_is_read_as_it_is(two):
    (two / "a").rename(two / "a:0.7")
    (two / "b").rename(two / "b:c")
    assert weighted(f"{two}/a:0.7,{two}/b:c") == [
        (f"{two}/a:0.7", "", 3),
        (f"{two}/b:c", "", 3),
    ]
    assert weighted(f"{two}/a:0.7:2,{two}/b:c:1")[0] == (f"{two}/a:0.7", "2", 3)
    assert len(record_files(f"{two}/a:0.7")) == 3


@pytest.mark.parametrize(
    "setting, match",
    [
        ("{0}/a:1,{0}/b", "a weight for each set, or for none"),
        ("{0}/a:0,{0}/b:1", "finite and greater than 0"),
        ("{0}/a:1,{0}/a:2", "names a file twice"),
        ("{0}/a:1,{0}/gone:2", "no file or folder .*/gone"),
        ("{0}/a:1,{0}/b:x", "no file or folder .*/b:x"),
    ],
)
def test_wrong_weights_are_refused(two, setting, match):
    with pytest.raises((ValueError, OSError), match=match):
        record_sets(setting.format(two), may_have_weights=True)


def test_only_training_records_have_weights(two):
    with pytest.raises(
        ValueError, match="Only the records of a training.*Leave out :1"
    ):
        record_files(f"{two}/a:1,{two}/b:2")
