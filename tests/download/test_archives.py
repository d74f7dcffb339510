import io
import random
import stat
import tarfile
import zipfile

import pytest

from bert_tf.download import archives
from bert_tf.download.archives import unpack
from bert_tf.errors import RunError

FILES = {"model/vocab.txt": b"[PAD]\n", "model/deep/config.json": b"{}"}


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tar_of(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("exists", [True, False])
def test_archive_is_unpacked(tmp_path, make, exists):
    target = tmp_path / "out" / "model"
    if exists:
        target.mkdir(parents=True)
    archive = make(tmp_path / "archive", FILES)
    unpack(archive, target)
    expected = {"vocab.txt": b"[PAD]\n", "deep/config.json": b"{}"}
    assert contents(target) == expected
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_only_folder_may_be_kept(tmp_path):
    unpack(zip_of(tmp_path / "a.zip", FILES), tmp_path / "out", flatten=False)
    assert contents(tmp_path / "out") == FILES
    flat = zip_of(tmp_path / "b.zip", {"a.txt": b"a", "b/c.txt": b"c"})
    unpack(flat, tmp_path / "flat")
    assert contents(tmp_path / "flat") == {"a.txt": b"a", "b/c.txt": b"c"}


def link(name, kind):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


def zip_link(path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, "/etc/passwd")
    return path


def zip_twice(path):
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning):
        file.writestr("a.txt", "1")
        file.writestr("a.txt", "2")
    return path


HOSTILE = {
    "zip above": lambda p: zip_of(p, {"../evil.txt": b"x"}),
    "zip deep above": lambda p: zip_of(p, {"a/../../evil.txt": b"x"}),
    "zip absolute": lambda p: zip_of(p, {"/tmp/evil.txt": b"x"}),
    "zip drive": lambda p: zip_of(p, {"C:evil.txt": b"x"}),
    "zip backslash": lambda p: zip_of(p, {"..\\evil.txt": b"x"}),
    "zip link": zip_link,
    "zip twice": zip_twice,
    "zip same name in other case": lambda p: zip_of(p, {"a.txt": b"1", "A.txt": b"2"}),
    "zip bomb": lambda p: zip_of(p, {"a": bytes(200_000_000)}),
    "tar above": lambda p: tar_of(p, {"../evil.txt": b"x"}),
    "tar absolute": lambda p: tar_of(p, {"/tmp/evil.txt": b"x"}),
    "tar link": lambda p: tar_of(p, {link("a", tarfile.SYMTYPE): b""}),
    "tar hard link": lambda p: tar_of(p, {link("a", tarfile.LNKTYPE): b""}),
    "tar device": lambda p: tar_of(p, {link("a", tarfile.CHRTYPE): b""}),
    "tar pipe": lambda p: tar_of(p, {link("a", tarfile.FIFOTYPE): b""}),
    "tar bomb": lambda p: tar_of(p, {"a": bytes(200_000_000)}),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(tmp_path, make):
    archive = make(tmp_path / "archive")
    with pytest.raises(RunError, match="was not unpacked: its member"):
        unpack(archive, tmp_path / "in" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["archive", "in"]


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    archive = zip_of(tmp_path / "a.zip", {str(n): b"" for n in range(11)})
    with pytest.raises(RunError, match="member '10' exceeds the limit"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_damaged_archive_is_refused(tmp_path, make, keep):
    members = {str(n): bytes(range(256)) * (n + 1) for n in range(40)}
    archive = make(tmp_path / "archive", members)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(RunError, match="is damaged|is neither"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_archive_with_changed_bytes_is_refused(tmp_path, make):
    for seed in range(20):
        chance = random.Random(seed)
        text = bytes(chance.choices(b"abcdefgh \n", k=20_000))
        archive = make(tmp_path / "archive", {"a": text})
        content = bytearray(archive.read_bytes())
        content[chance.randrange(200, len(content) - 200)] ^= 0xFF
        archive.write_bytes(content)
        with pytest.raises(RunError, match="is damaged|neither|was not unpacked"):
            unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_full_disk_is_not_called_damage(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_copy", fail)
    with pytest.raises(OSError, match="No space left"):
        unpack(zip_of(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_name_of_a_file_and_a_folder_is_refused(tmp_path, names):
    archive = zip_of(tmp_path / "a.zip", dict.fromkeys(names, b""))
    with pytest.raises(RunError, match="both a file and a folder"):
        unpack(archive, tmp_path / "out")


def test_other_files_are_no_archives(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    with pytest.raises(RunError, match="neither a zip nor a tar"):
        unpack(tmp_path / "a", tmp_path / "out")


def test_folder_with_files_is_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="must be new or empty"):
        unpack(zip_of(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine": b"x"}
