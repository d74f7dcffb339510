"""Names to folders, from a server that stands in for those of the catalogue."""

import bz2
import dataclasses
import hashlib
import io
import subprocess
import zipfile

import pytest
from conftest import ROOT
from download.serving import status
from integration.launching import run_python

from bert_tf.cli import data
from bert_tf.config.download import DownloadConfig
from bert_tf.download import catalogue, datasets
from bert_tf.download.catalogue import CATALOGUE, Entry, RemoteFile
from bert_tf.errors import RunError


def archive_of(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(f"model/{name}", content)
    return file.getvalue()


def download(server, tmp_path, name, **options):
    config = DownloadConfig(name=name, output_dir=str(tmp_path / "data"), **options)
    return datasets.download(config, server.retries)


@pytest.fixture
def model(server, monkeypatch):
    """A published model with a known checksum of its vocabulary."""
    url = server.file("/m.zip", archive_of(vocab="[PAD]", config="{}"))
    sums = {"vocab": hashlib.sha256(b"[PAD]").hexdigest()}
    entry = Entry("2018/m", (RemoteFile(url, "m.zip"),), True, sums)
    monkeypatch.setitem(CATALOGUE, "2018/m", entry)
    return entry


def test_model_is_unpacked_and_kept(server, tmp_path, model):
    for _ in range(2):
        [folder] = download(server, tmp_path, "2018/m")
        assert (folder / "vocab").read_text() == "[PAD]"
    assert len(server.requests) == 1
    assert not (folder.parent / "m.zip").exists()


def test_folder_that_lost_or_changed_a_file_is_fetched_again(server, tmp_path, model):
    [folder] = download(server, tmp_path, "2018/m")
    for spoil in (
        lambda: (folder / "vocab").write_text("changed"),
        lambda: (folder / "config").unlink(),
        lambda: [path.unlink() for path in folder.iterdir()],
    ):
        spoil()
        download(server, tmp_path, "2018/m")
        assert (folder / "vocab").read_text() == "[PAD]"
        assert (folder / "config").read_text() == "{}"
    assert len(server.requests) == 4


def test_half_unpacked_folder_is_replaced_but_no_file_of_the_user(
    server, tmp_path, model
):
    folder = tmp_path / "data" / "2018" / "m"
    folder.mkdir(parents=True)
    (folder / "vocab").write_text("[PA")
    (folder / "my_notes").write_text("mine")
    with pytest.raises(FileExistsError, match="holds my_notes"):
        download(server, tmp_path, "2018/m")
    assert (folder / "my_notes").read_text() == "mine"
    (folder / "my_notes").unlink()
    download(server, tmp_path, "2018/m")
    assert (folder / "vocab").read_text() == "[PAD]"


def test_list_of_an_unpacked_folder_is_for_sha256sum(server, tmp_path, model):
    [folder] = download(server, tmp_path, "2018/m")
    command = ["sha256sum", "--check", "--strict", f"{folder}.sha256"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_wrong_member_of_an_archive_is_refused(server, tmp_path, model):
    server.file("/m.zip", archive_of(vocab="other"))
    with pytest.raises(RunError, match=r"vocab must have the sha256"):
        download(server, tmp_path, "2018/m")
    server.file("/m.zip", archive_of(vocab="[PAD]"))
    [folder] = download(server, tmp_path, "2018/m")
    assert (folder / "vocab").read_text() == "[PAD]"


@pytest.mark.parametrize("name", ["squad-1.1", "cola", "wikipedia", "2018/m,2018/m"])
def test_checksum_that_would_not_be_used_is_refused(server, tmp_path, model, name):
    with pytest.raises(ValueError, match="`sha256` must be left out"):
        download(server, tmp_path, name, sha256="0" * 64)
    assert server.requests == []


@pytest.mark.parametrize("setting", [{"language": "de"}, {"date": "20200101"}])
def test_a_dump_that_is_not_downloaded_is_not_described(
    server, tmp_path, model, setting
):
    [name] = setting
    with pytest.raises(
        ValueError, match=f"`{name}` must be left out unless.*wikipedia"
    ):
        download(server, tmp_path, "2018/m", **setting)
    assert server.requests == []


def test_date_of_a_model_may_be_left_out_where_it_is_unambiguous(
    server, tmp_path, model
):
    [folder] = download(server, tmp_path, "m")
    assert (folder / "vocab").read_text() == "[PAD]"
    both = "2018_10_18/uncased_L-12_H-768_A-12, 2020_02_20/uncased_L-12_H-768_A-12"
    with pytest.raises(ValueError, match=f"one of {both}. "):
        download(server, tmp_path, "uncased_L-12_H-768_A-12")


def test_names_can_be_listed(capsys):
    data.main(["download", "--list"])
    listed = capsys.readouterr().out.split()
    assert listed[0] == "wikipedia"
    assert {"squad-2.0", "mrpc", "2020_02_20/uncased_L-2_H-128_A-2"} < set(listed)


def test_an_archive_without_a_published_checksum_may_be_pinned(server, tmp_path, model):
    with pytest.raises(RunError, match=f"sha256 {'0' * 64}. Received: "):
        download(server, tmp_path, "2018/m", sha256="0" * 64)


MRPC = {
    "train": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    '1\t10\t11\tA "cat\tA dog\n0\t20\t21\tB\tC\n1\t30\t31\tD\tE\n',
    "test": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t40\t41\tF\tG\n",
    "ids": "20\t21\n",
}


def test_mrpc_has_the_files_of_glue(server, tmp_path, monkeypatch):
    files = []
    for part, known in zip(MRPC, CATALOGUE["mrpc"].files, strict=True):
        content = MRPC[part].encode()
        url = server.file(f"/{part}", content)
        files.append(
            dataclasses.replace(
                known, url=url, sha256=hashlib.sha256(content).hexdigest()
            )
        )
    entry = dataclasses.replace(CATALOGUE["mrpc"], files=tuple(files))
    monkeypatch.setitem(CATALOGUE, "mrpc", entry)
    [folder] = download(server, tmp_path, "mrpc")
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    assert (folder / "train.tsv").read_text() == (
        head + '1\t10\t11\tA "cat\tA dog\n1\t30\t31\tD\tE\n'
    )
    assert (folder / "dev.tsv").read_text() == head + "0\t20\t21\tB\tC\n"
    assert (folder / "test.tsv").read_text() == (
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t40\t41\tF\tG\n"
    )


def serve_dump(server, content, listed):
    server.file("/simplewiki/20200101/simplewiki-20200101-sha1sums.txt", listed)
    path = "/simplewiki/20200101/simplewiki-20200101-pages-articles.xml.bz2"
    server.file(path, content)


def test_dump_is_checked_against_the_list_of_checksums_next_to_it(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(catalogue, "_DUMPS", f"{server.url}/")
    content = bz2.compress(b"<mediawiki/>")
    name = "simplewiki-20200101-pages-articles.xml.bz2"
    sums = f"{hashlib.sha1(content).hexdigest()}  {name}\n{'0' * 40}  other\n"
    serve_dump(server, content, sums.encode())
    dump = {"language": "simple", "date": "20200101"}
    [path] = download(server, tmp_path, "wikipedia", **dump)
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == [name]
    path.unlink()
    serve_dump(server, bz2.compress(b"<other/>"), sums.encode())
    with pytest.raises(RunError, match="must have the sha1"):
        download(server, tmp_path, "wikipedia", **dump)
    for listed in (b"nothing", f"deadbeef  {name}\n".encode()):
        serve_dump(server, content, listed)
        with pytest.raises(RunError, match="must list one sha1.*Received: 0"):
            download(server, tmp_path, "wikipedia", **dump)


def test_unknown_name_lists_the_known_ones(server, tmp_path):
    with pytest.raises(ValueError, match=r"wikipedia, squad-1\.1.*name=sqad"):
        download(server, tmp_path, "squad-1.1,sqad")
    assert server.requests == []


def test_catalogue_names_what_the_published_systems_use():
    small = [name for name in CATALOGUE if name.startswith("2020_02_20/")]
    assert len(small) == 24
    assert "2019_05_30/wwm_uncased_L-24_H-1024_A-16" in CATALOGUE
    cased = CATALOGUE["2018_10_18/cased_L-12_H-768_A-12"]
    base = "https://storage.googleapis.com/bert_models/2018_10_18/"
    assert cased.files[0].url == f"{base}cased_L-12_H-768_A-12.zip"
    sums = [file.sha256 for e in CATALOGUE.values() for file in e.files]
    sums += [sum_ for e in CATALOGUE.values() for sum_ in e.members.values()]
    assert {len(sum_) for sum_ in sums} == {0, 64}
    # The vocabulary in .data is that of bert-base-uncased.
    vocabulary = (ROOT / ".data" / "vocab.txt").read_bytes()
    uncased = CATALOGUE["2018_10_18/uncased_L-12_H-768_A-12"]
    assert uncased.members["vocab.txt"] == hashlib.sha256(vocabulary).hexdigest()


@pytest.mark.parametrize("flatten", ["True", "False"])
@pytest.mark.parametrize("suffix", ["/", "", "/m.zip"])
def test_published_command_for_models(
    server, tmp_path, monkeypatch, flatten, suffix, capfd
):
    monkeypatch.chdir(tmp_path)
    server.file("/models/m.zip", archive_of(vocab="[PAD]"))
    script = ROOT / "scripts" / "download_pretrained_model.py"
    result = run_python(script, f"{server.url}/models{suffix}", "m", flatten)
    assert result.returncode == 0, result.stderr
    inner = "m" if flatten == "True" else "m/model"
    assert (tmp_path / inner / "vocab").read_text() == "[PAD]"


def test_published_command_says_in_one_line_what_is_wrong(
    server, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    server.sequence("/m.zip", status(404))
    script = ROOT / "scripts" / "download_pretrained_model.py"
    result = run_python(script, server.url, "m", "True")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "answers 404" in result.stderr
