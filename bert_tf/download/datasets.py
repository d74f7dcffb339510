"""Downloads what the catalogue names, checks it and unpacks it."""

import os
import re
import shutil
import sys
from pathlib import Path

from bert_tf.config import checks
from bert_tf.config.download import DownloadConfig
from bert_tf.data.tasks.glue_tasks import find_task
from bert_tf.download.archives import unpack
from bert_tf.download.catalogue import CATALOGUE, MRPC, WIKIPEDIA, Entry, wikipedia
from bert_tf.download.checksums import read_checksums
from bert_tf.download.fetching import Retries, fetch, is_valid
from bert_tf.errors import RunError, did_you_mean
from bert_tf.files import file_sha256, temporary_folder, write_whole

_MRPC_COLUMNS = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")


def names() -> list[str]:
    """All names that can be downloaded."""
    return [WIKIPEDIA, *CATALOGUE]


def _full_name(name: str) -> str:
    """The name in the catalogue; a model's date is optional unless it is ambiguous.

    Raises:
      ValueError: if the name is unknown or ambiguous.
    """
    found = [full for full in names() if name in (full, full.rpartition("/")[2])]
    if len(found) != 1:
        choices = ", ".join(found or names())
        question = did_you_mean(name, names()) if not found else ""
        message = f"`name` must be one of {choices}. Received: name={name}. {question}"
        raise ValueError(message.rstrip())
    return found[0]


def download(config: DownloadConfig, retries: Retries | None = None) -> list[Path]:
    """Downloads all that is asked for, unless it exists and is valid.

    Args:
      config: Names and folder.
      retries: When to retry.

    Returns:
      The folder or file of each name.

    Raises:
      ValueError: if a name is unknown, or has not the language, date or checksum that
        is given.
      RunError: if something cannot be downloaded, checked or unpacked.
    """
    asked = [_full_name(name.strip()) for name in config.name.split(",")]
    if config.sha256 != "none":
        unpinned = [name in CATALOGUE and CATALOGUE[name].is_archive for name in asked]
        if unpinned != [True] or CATALOGUE[asked[0]].files[0].sha256:
            raise ValueError(
                "`sha256` must be left out unless `name` is one archive without a "
                f"published checksum. Received: sha256={config.sha256}, "
                f"name={config.name}."
            )
    for setting in ("language", "date"):
        value = getattr(config, setting)
        is_used = WIKIPEDIA in asked or value == getattr(DownloadConfig, setting)
        rule = f"be left out unless `name` lists {WIKIPEDIA}"
        checks.require(is_used, setting, rule, value, f"Leave out --{setting}.")
    return [_download_one(name, config, retries) for name in asked]


def _download_one(name: str, config: DownloadConfig, retries: Retries | None) -> Path:
    if name == WIKIPEDIA:
        return _download_dump(config, retries)
    entry = CATALOGUE[name]
    folder = Path(config.output_dir, entry.folder)
    if entry.is_archive:
        sha256 = "" if config.sha256 == "none" else config.sha256
        download_archive(entry, folder, sha256, retries)
        return folder
    for file in entry.files:
        fetch(file.url, folder / file.name, file.sha256, retries)
    if name == MRPC:
        format_mrpc(folder)
    return folder


def download_archive(
    entry: Entry,
    folder: Path,
    sha256: str = "",
    retries: Retries | None = None,
    flatten: bool = True,
) -> None:
    """Downloads an archive and unpacks it into a folder, unless that is valid.

    `<folder>.sha256` lists the checksums of all files, as sha256sum writes it. A folder
    is valid if its files have the checksums of that list and of the catalogue.

    Args:
      entry: An entry of the catalogue.
      folder: Its folder; one that is not valid is replaced.
      sha256: Of the archive, where the catalogue has none.
      retries: When to retry.
      flatten: See `unpack`.

    Raises:
      FileExistsError: if the folder is not valid, and holds files that are not from the
        archive.
      RunError: if it cannot be downloaded or unpacked, or a checksum differs.
    """
    [file] = entry.files
    sums = Path(f"{folder}.sha256")
    expected = {**(read_checksums(str(sums)) if sums.exists() else {}), **entry.members}
    if expected and all(
        is_valid(folder / name, sum_) for name, sum_ in expected.items()
    ):
        print(f"{folder} exists already, with the right checksums.", file=sys.stderr)
        return
    archive = folder.parent / file.name
    fetch(file.url, archive, file.sha256 or sha256, retries)
    with temporary_folder(folder) as work:
        fresh = work / folder.name
        unpack(archive, fresh, flatten)
        _check_members(entry, archive, fresh)
        _replace(folder, fresh)
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in _files(folder)]
    write_whole(sums, "".join(lines))
    archive.unlink()


def _check_members(entry: Entry, archive: Path, folder: Path) -> None:
    """Deletes the archive if a file in it is not the published one."""
    for name, expected in entry.members.items():
        path = folder / name
        found = file_sha256(path) if path.is_file() else "nothing"
        if found != expected:
            archive.unlink()
            Path(f"{archive}.sha256").unlink(missing_ok=True)
            raise RunError(
                f"{archive}: {name} must have the sha256 {expected}. Received: "
                f"{found}. The archive was deleted: it is damaged, or another version "
                "of the model. Download it again."
            )


def _files(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in files)


def _replace(folder: Path, fresh: Path) -> None:
    """Replaces an invalid folder, unless it holds files that are not in the new one."""
    if folder.exists():
        own = sorted(set(_files(folder)) - set(_files(fresh)))
        if own or not folder.is_dir():
            what = f"holds {own[0]}, which is" if own else "is a file,"
            raise FileExistsError(
                f"{folder} must be replaced, since its checksums are wrong, but it "
                f"{what} not from the archive. Move that elsewhere, and run the same "
                "command again."
            )
        shutil.rmtree(folder)
    os.replace(fresh, folder)


def _download_dump(config: DownloadConfig, retries: Retries | None) -> Path:
    file, sums_url = wikipedia(config.language, config.date)
    folder = Path(config.output_dir)
    path = folder / file.name
    sums = folder / sums_url.rpartition("/")[2]
    own = (sums, Path(f"{sums}.sha256"))
    for extra in own:
        extra.unlink(missing_ok=True)  # The list of the latest dump changes.
    fetch(sums_url, sums, "", retries)
    ending = "-pages-articles.xml.bz2"
    line = re.compile(rf"^([0-9a-f]{{40}}) .*{re.escape(ending)}$", re.MULTILINE)
    found = line.findall(sums.read_text(encoding="utf-8", errors="replace"))
    for extra in own:
        extra.unlink()
    if len(found) != 1:
        raise RunError(
            f"{sums_url} must list one sha1 of a file *{ending}. Received: "
            f"{len(found)}. The dump may not be complete: choose another --date."
        )
    fetch(file.url, path, found[0], retries)
    return path


def format_mrpc(folder: Path) -> None:
    """Makes GLUE's train.tsv, dev.tsv and test.tsv from the files of the corpus.

    Args:
      folder: Holds msr_paraphrase_train.txt, msr_paraphrase_test.txt and
        mrpc_dev_ids.tsv, whose pairs of ids are the development set.
    """
    for split in ("train", "dev", "test"):
        corpus = find_task("MRPC").files[split][-1]
        rows = [tuple(r.values.values()) for r in corpus.rows(folder, _MRPC_COLUMNS)]
        header = _MRPC_COLUMNS
        if split == "test":  # GLUE has no labels here.
            header = ("index", *_MRPC_COLUMNS[1:])
            rows = [(str(number), *row[1:]) for number, row in enumerate(rows)]
        text = "".join("\t".join(row) + "\n" for row in (header, *rows))
        write_whole(folder / f"{split}.tsv", text)
