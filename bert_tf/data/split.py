"""Documents to training and test text, each document wholly on one side."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from bert_tf.config.data import SplitDataConfig
from bert_tf.data import output
from bert_tf.data.documents import (
    Sentences,
    document_bytes,
    expand_paths,
    read_documents,
    read_lines,
)
from bert_tf.data.sentences import split_sentences

# A new file begins after so much text, so that no file is too large to look at.
_FILE_BYTES = 64 << 20


class SplitCounts(NamedTuple):
    """How many documents went where."""

    train: int
    test: int


def read_json_documents(path: str, text_field: str) -> Iterator[Sentences]:
    """Streams the documents of a JSON file; sentences are found by rules.

    Args:
      path: A .jsonl file (a document per line), or JSON: a list of documents or an
        object of them by title. A document is an object with `text_field`, or a
        string.
      text_field: The key of the text.

    Yields:
      Non-empty lists of sentences; documents without text are left out.

    Raises:
      ValueError: if it is not such a file, naming file and entry.
    """
    entries = _json_lines(path) if path.endswith(".jsonl") else _json_entries(path)
    for place, entry in entries:
        text = entry.get(text_field) if isinstance(entry, dict) else entry
        if not isinstance(text, str):
            raise ValueError(
                f"{path}, {place}: a document must be a string or an object with a "
                f"string under `text_field`. Received: text_field={text_field}."
            )
        document = [
            sentence
            for paragraph in text.splitlines()
            for sentence in split_sentences(paragraph)
        ]
        if document:
            yield document


def _json_lines(path: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line:
            yield f"line {number}", _parse_json(line, f"{path}, line {number}")


def _json_entries(path: str) -> Iterator[tuple[str, Any]]:
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} of the file is not UTF-8."
        ) from None
    values = _parse_json(content, path)
    if isinstance(values, dict):
        yield from ((f"entry {title!r}", entry) for title, entry in values.items())
    elif isinstance(values, list):
        yield from ((f"entry {place}", entry) for place, entry in enumerate(values))
    else:
        raise ValueError(f"{path}: it must hold a JSON list or object of documents.")


def _parse_json(content: str, place: str) -> Any:  # noqa: ANN401 - whatever is there
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not JSON: {error}.") from None


class _TextFiles:
    """Writes documents in google's format into the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = contextlib.ExitStack()
        self._file: TextIO | None = None
        self._bytes = 0
        self._num_files = 0
        self.num_documents = 0

    def write(self, document: Sentences) -> None:
        if self._file is None or self._bytes > _FILE_BYTES:
            self.close()
            path = self._folder / f"part-{self._num_files:05d}.txt"
            self._file = self._files.enter_context(
                open(path, "w", encoding="utf-8", newline="\n")
            )
            self._num_files += 1
            self._bytes = 0
        elif self._bytes:
            self._file.write("\n")
        self._file.writelines(f"{sentence}\n" for sentence in document)
        self._bytes += document_bytes(document) + 1
        self.num_documents += 1

    def close(self) -> None:
        self._files.close()


def belongs_to_test(document: Sentences, seed: int, fraction: float) -> bool:
    """Whether a document goes to the test text: by its own text and the seed alone.

    Args:
      document: Its sentences.
      seed: Another seed, another choice.
      fraction: Share of the documents that go there, in (0, 1).

    Returns:
      The same answer wherever and however often the document appears.
    """
    text = "\n".join([str(seed), *document]).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2.0**64


def split_documents(config: SplitDataConfig) -> SplitCounts:
    """Writes each document to the training or the test folder.

    Args:
      config: All settings.

    Returns:
      Numbers of documents.

    Raises:
      FileNotFoundError: if there is no input.
      FileExistsError: if a folder holds text and `overwrite` is false, or other files.
      ValueError: if the input cannot be read, or a side would be empty.
    """
    if os.path.abspath(config.train_dir) == os.path.abspath(config.test_dir):
        raise ValueError(
            "`test_dir` must be another folder than `train_dir`. Received: "
            f"train_dir={config.train_dir}, test_dir={config.test_dir}."
        )
    for name in ("train_dir", "test_dir"):
        folder = getattr(config, name)
        output.check_output_dir(name, folder, output.TEXTS, config.overwrite)
    with (
        output.temporary_output_dir(config.train_dir) as train_folder,
        output.temporary_output_dir(config.test_dir) as test_folder,
    ):
        counts = _write(_documents(config), config, train_folder, test_folder)
        output.move_into_place(train_folder, config.train_dir, output.TEXTS)
        output.move_into_place(test_folder, config.test_dir, output.TEXTS)
    return counts


def _documents(config: SplitDataConfig) -> Iterator[Sentences]:
    if config.input_format != "json":
        yield from read_documents(expand_paths(config.input), config.input_format)
        return
    for path in expand_paths(config.input, (".json", ".jsonl")):
        yield from read_json_documents(path, config.text_field)


def _write(
    documents: Iterable[Sentences], config: SplitDataConfig, train: Path, test: Path
) -> SplitCounts:
    with (
        contextlib.closing(_TextFiles(train)) as train_files,
        contextlib.closing(_TextFiles(test)) as test_files,
    ):
        for document in documents:
            is_test = belongs_to_test(document, config.seed, config.fraction_test_set)
            (test_files if is_test else train_files).write(document)
    counts = SplitCounts(train_files.num_documents, test_files.num_documents)
    if not all(counts):
        raise ValueError(
            f"Of the documents, {counts.train} went to `train_dir` and {counts.test} "
            "to `test_dir`, but both must get some. Give more documents, or another "
            f"fraction. Received: fraction_test_set={config.fraction_test_set}."
        )
    return counts
