"""Splits documents into sentences, as text in google's format."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bert_tf.config.text import SentencesConfig
from bert_tf.data.commands.document_files import write_documents
from bert_tf.data.commands.output_folder import (
    TEXT_FILES,
    OutputFolder,
    settings_of,
)
from bert_tf.data.output_files import OutputFile, require_documents, total_counts
from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.data.text.documents import holds_words, read_lines
from bert_tf.data.text.duplicates import make_finder
from bert_tf.data.text.input_files import expand_paths
from bert_tf.data.text.sentence_splitting import split_sentences
from bert_tf.files import content_size
from bert_tf.json_files import parse_json
from bert_tf.progress import ProgressReport


def _json_lines(paths: Sequence[str]) -> Iterator[tuple[tuple[str, int, str], int]]:
    """Lines with path and line number, for messages, and their sizes."""
    for path in paths:
        for number, line in enumerate(read_lines(path), start=1):
            yield (path, number, line), len(line)


def _different(
    lines: Iterable[tuple[tuple[str, int, str], int]], mode: str, counts: Counter[str]
) -> Iterator[tuple[tuple[str, int, str], int]]:
    """The lines whose document does not repeat an earlier one; counts the others."""
    find = make_finder(mode)
    for line, size in lines:
        try:
            text = parse_json(line[2])["text"]
            [is_repeated] = find(["\n".join(map(str.strip, text.splitlines()))])
        except (ValueError, KeyError, TypeError, AttributeError):
            is_repeated = False  # `split_documents` raises the error.
        counts["repeated"] += is_repeated
        if not is_repeated:
            yield line, size


def split_documents(
    lines: list[tuple[str, int, str]],
) -> tuple[bytes, Counter[str]]:
    """Splits documents into sentences: one task of a worker process.

    Args:
      lines: Path, line number and JSON object of each document, see `extract`.

    Returns:
      Text in google's format, with a blank line after each document, and counts of
      `documents` and `sentences`; documents without words are left out.

    Raises:
      ValueError: if a line holds no document, naming file and line.
    """
    counts: Counter[str] = Counter()
    documents = []
    for path, number, line in lines:
        found = repr(line[:40])
        try:
            entry = parse_json(line)
            if isinstance(entry, dict):
                found = f"an object with {quoted_list(entry)}"
            paragraphs = entry["text"].splitlines()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path}, line {number}: must be a JSON object with a `text`, as "
                f"`python -m bert_tf data extract` writes it. Received: {found}."
            ) from None
        sentences = [s for p in paragraphs for s in split_sentences(p)]
        if any(map(holds_words, sentences)):
            documents.append("\n".join(sentences) + "\n\n")
            counts["documents"] += 1
            counts["sentences"] += len(sentences)
    return "".join(documents).encode(errors="replace"), counts


def make_sentences(config: SentencesConfig) -> Counter[str]:
    """Splits the documents of files into sentences; resumes an interrupted call.

    Args:
      config: All settings.

    Returns:
      Counts of `documents`, `sentences` and `bytes` written; with dedup, of the
      `repeated` documents that are left out, 0 if the output was complete already.

    Raises:
      FileNotFoundError: if there is no input.
      FileExistsError: if `output_dir` holds other output.
      ValueError: if a file was not written by `extract`; the message says where.
    """
    paths = expand_paths(config.input, (".jsonl",))
    # Manifests of earlier versions, without this setting, stay valid.
    settings = settings_of(config, "input", *(() if config.dedup else ("dedup",)))
    left_out: Counter[str] = Counter()
    output = OutputFolder("sentences", config.output_dir, TEXT_FILES, settings, paths)

    def make(output: OutputFolder) -> list[OutputFile]:
        processes, lines = config.num_processes, _json_lines(paths)
        if config.dedup:
            lines = _different(lines, config.dedup, left_out)
        with ProgressReport(sum(map(content_size, paths)), "documents") as progress:
            files = write_documents(
                lines, split_documents, output, ".txt", processes, progress
            )
        require_documents(files, output.partial_dir, config.input)
        return files

    if config.dedup:
        make_finder(config.dedup)  # A package may be missing.
    return total_counts(output.complete(config.overwrite, make)) + left_out
