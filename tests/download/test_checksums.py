import hashlib
import subprocess

import pytest

from bert_tf.config.download import VerifyConfig
from bert_tf.download.checksums import read_checksums, unlisted_files, verify_folder


@pytest.fixture
def folder(tmp_path):
    for name, content in (("a.txt", b"a"), ("deep/b c.txt", b"b"), ("d.txt", b"")):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "files"


@pytest.mark.parametrize(
    "command",
    [["md5sum"], ["md5sum", "--binary"], ["sha1sum"], ["sha256sum", "--tag"]],
    ids=" ".join,
)
def test_lists_of_the_usual_programs_are_read(folder, tmp_path, command):
    names = ["a.txt", "deep/b c.txt", "d.txt"]
    listed = subprocess.run(
        [*command, *names], cwd=folder, capture_output=True, text=True, check=True
    )
    (tmp_path / "sums").write_text(f"# a comment\n\n{listed.stdout}")
    config = VerifyConfig(folder=str(folder), checksum_file=str(tmp_path / "sums"))
    assert verify_folder(config) == 3
    assert list(unlisted_files(config)) == []


def test_missing_and_different_files_are_named(folder, tmp_path):
    md5 = hashlib.md5(b"a").hexdigest()
    names = ["a.txt", "d.txt", *(f"none-{n}" for n in range(7))]
    (tmp_path / "sums").write_text("".join(f"{md5}  ./{name}\r\n" for name in names))
    config = VerifyConfig(folder=str(folder), checksum_file=str(tmp_path / "sums"))
    expected = (
        r"of 9 files, missing: 7 \(none-0, none-1, none-2, none-3, none-4, and 2 "
        r"more\), different: 1 \(d\.txt\)"
    )
    with pytest.raises(ValueError, match=expected):
        verify_folder(config)
    assert list(unlisted_files(config)) == ["deep/b c.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must list at least one file"),
        ("hello", "line 1: must be a checksum.*'hello'"),
        (f"{'0' * 33}  a", "line 1: must be a checksum"),
        (f"\n{'0' * 32}  ../a", r"line 2: .*relative path.*Received: \.\./a"),
        (f"{'0' * 32}  /etc/passwd", "line 1: .*relative path.*Received: /etc/passwd"),
        (f"{'0' * 32}  a\n{'1' * 32}  a", "line 2: an earlier line has another check"),
    ],
)
def test_other_lists_are_refused(tmp_path, content, message):
    (tmp_path / "sums").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_checksums(str(tmp_path / "sums"))


def test_of_several_kinds_of_checksum_the_longest_counts(tmp_path):
    lines = ["0" * 32, "1" * 64, "2" * 40, "1" * 64]
    (tmp_path / "sums").write_text("".join(f"{each}  a\n" for each in lines))
    assert read_checksums(str(tmp_path / "sums")) == {"a": "1" * 64}


def test_missing_list_or_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="checksum_file="):
        read_checksums(str(tmp_path / "none"))
    (tmp_path / "sums").write_text(f"{'0' * 32}  a")
    config = VerifyConfig(folder="/none", checksum_file=str(tmp_path / "sums"))
    with pytest.raises(FileNotFoundError, match="folder=/none"):
        verify_folder(config)
