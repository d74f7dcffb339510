import os
import shutil
from pathlib import Path

import pytest

from bert_tf.data.records.record_index import record_files


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
