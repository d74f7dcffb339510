"""Names of the catalogue to folders of files, ready to be used."""

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from bert_tf.config.download import DownloadConfig
from bert_tf.download.archives import unpack
from bert_tf.download.catalogue import CATALOGUE, MRPC, WIKIPEDIA, Entry, wikipedia
from bert_tf.download.fetching import Retries, fetch, file_sum
from bert_tf.errors import RunError

_MRPC_COLUMNS = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")


def download(config: DownloadConfig, retries: Retries | None = None) -> list[Path]:
    """Fetches everything that is asked for; what is there and valid is kept.

    Args:
      config: Names and folder.
      retries: When to try again.

    Returns:
      The folder or file of each name.

    Raises:
      ValueError: if a name is unknown.
      RunError: if something cannot be fetched, checked or unpacked.
    """
    names = [name.strip() for name in config.name.split(",") if name.strip()]
    for name in names:
        if name not in CATALOGUE and name != WIKIPEDIA:
            raise ValueError(
                f"`name` must be among: {', '.join((WIKIPEDIA, *CATALOGUE))}. "
                f"Received: name={name}."
            )
    return [_download_one(name, config, retries) for name in names]


def _download_one(name: str, config: DownloadConfig, retries: Retries | None) -> Path:
    if name == WIKIPEDIA:
        return _download_dump(config, retries)
    entry = CATALOGUE[name]
    folder = Path(config.output_dir, entry.folder)
    if entry.is_archive:
        download_archive(entry, folder, config.sha256, retries)
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
    """Fetches an archive and unpacks it into a folder, unless that is done.

    Args:
      entry: Of the catalogue.
      folder: Its folder; an empty one is filled.
      sha256: Of the archive, where the catalogue has none.
      retries: When to try again.
      flatten: See `unpack`.

    Raises:
      RunError: if it cannot be fetched or unpacked, or a file has another checksum.
    """
    [file] = entry.files
    # A note that is written last: a folder without it is not complete.
    note = folder.parent / f"{folder.name}.unpacked"
    if note.exists() and folder.is_dir() and any(folder.iterdir()):
        _check_members(entry, folder)
        print(f"{folder} is there already.", file=sys.stderr)
        return
    archive = folder.parent / file.name
    fetch(file.url, archive, file.sha256 or sha256, retries)
    unpack(archive, folder, flatten)
    _check_members(entry, folder)
    note.write_text(f"{file.url}\n", encoding="utf-8")
    archive.unlink()


def _check_members(entry: Entry, folder: Path) -> None:
    for name, expected in entry.members.items():
        path = folder / name
        found = file_sum(path, "sha256") if path.is_file() else "nothing"
        if found != expected:
            raise RunError(
                f"{path} must have the sha256 {expected}. Received: {found}. Remove "
                f"{folder} and fetch it again."
            )


def _download_dump(config: DownloadConfig, retries: Retries | None) -> Path:
    file, sums_url = wikipedia(config.language, config.date)
    folder = Path(config.output_dir)
    path = folder / file.name
    sums = folder / sums_url.rpartition("/")[2]
    sums.unlink(missing_ok=True)  # The list of the latest dump changes.
    fetch(sums_url, sums, "", retries)
    lines = sums.read_text(encoding="utf-8").splitlines()
    ending = "-pages-articles.xml.bz2"
    found = [line.split()[0] for line in lines if line.endswith(ending)]
    for extra in (sums, Path(f"{sums}.sha256")):
        extra.unlink()
    if len(found) != 1:
        raise RunError(f"{sums_url} lists no sha1 of *{ending}; is the dump complete?")
    fetch(file.url, path, found[0], retries)
    return path


def format_mrpc(folder: Path) -> None:
    """Makes GLUE's train.tsv, dev.tsv and test.tsv of the corpus's own files.

    Args:
      folder: Holds msr_paraphrase_train.txt, msr_paraphrase_test.txt and
        mrpc_dev_ids.tsv, whose pairs of ids are the development set.
    """
    ids = (folder / "mrpc_dev_ids.tsv").read_text(encoding="utf-8").splitlines()
    dev_ids = {tuple(line.split("\t")[:2]) for line in ids}
    rows = list(_mrpc_rows(folder / "msr_paraphrase_train.txt"))
    dev = [row for row in rows if (row[1], row[2]) in dev_ids]
    train = [row for row in rows if (row[1], row[2]) not in dev_ids]
    test = [
        (str(number), *row[1:])
        for number, row in enumerate(_mrpc_rows(folder / "msr_paraphrase_test.txt"))
    ]
    _write_tsv(folder / "train.tsv", [_MRPC_COLUMNS, *train])
    _write_tsv(folder / "dev.tsv", [_MRPC_COLUMNS, *dev])
    _write_tsv(folder / "test.tsv", [("index", *_MRPC_COLUMNS[1:]), *test])


def _mrpc_rows(path: Path) -> Iterator[tuple[str, ...]]:
    """Label, two ids and two sentences of each line but the first."""
    text = path.read_text(encoding="utf-8-sig")
    reader = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    next(reader)
    for number, row in enumerate(reader, start=2):
        if len(row) != len(_MRPC_COLUMNS):
            raise RunError(f"{path}, line {number}: it has {len(row)} columns, not 5.")
        yield tuple(row)


def _write_tsv(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    part = Path(f"{path}.part")
    text = "".join("\t".join(row) + "\n" for row in rows)
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)
