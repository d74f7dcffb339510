"""Classification tasks: their files, labels and metrics, and their token sequences."""

import dataclasses
import math
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bert_tf.data.tasks.label_names import quoted
from bert_tf.data.tasks.row_labels import (
    ColumnNames,
    Kind,
    class_number,
    names_of,
    number_of,
)
from bert_tf.data.tasks.tables import Row, numbered_lines, read_rows
from bert_tf.data.text.token_sequences import (
    TokenSequences,
    pair_sequence,
    truncated_lengths,
)
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.errors import listed
from bert_tf.files import without_gz

# Names of the development file of one's own data.
DEV_NAMES = ("dev", "val", "valid", "validation")
# [CLS] and two [SEP]; a shorter sequence cannot hold a pair.
_MIN_SEQ_LENGTH = 3


@dataclasses.dataclass(frozen=True)
class RowFilter:
    """Selects the rows of a file that belong to a split.

    Attributes:
      columns: The columns that are compared.
      values: Their values in the selected rows.
      list_file: A file next to the table with such values, tab-separated; empty to use
        `values`.
      excludes: Whether those rows are left out instead, and all others are kept.
    """

    columns: tuple[str, ...]
    values: Collection[tuple[str, ...]] = frozenset()
    list_file: str = ""
    excludes: bool = False

    def select(self, rows: Iterator[Row], folder: str) -> Iterator[Row]:
        """Streams the rows that belong to the split.

        Args:
          rows: Rows with the columns that are compared.
          folder: The folder of `list_file`.
        """
        values = self.values
        if self.list_file:
            lines = numbered_lines(os.path.join(folder, self.list_file))
            values = frozenset(tuple(line.split("\t")) for _, line in lines)
        for row in rows:
            key = tuple(row.values[column] for column in self.columns)
            if (key in values) != self.excludes:
                yield row


@dataclasses.dataclass(frozen=True)
class SplitFile:
    """A file with the examples of a split.

    Attributes:
      name: Its path in the task's folder.
      columns: The columns of the examples.
      header: Names of all columns, if the file has no header line.
      row_filter: Selects the rows; None for all rows.
      skips_broken_rows: Whether lines with a wrong number of columns are skipped.
      keeps_quotes: Whether quotes of a tab-separated file are text in any case.
    """

    name: str
    columns: ColumnNames
    header: tuple[str, ...] = ()
    row_filter: RowFilter | None = None
    skips_broken_rows: bool = False
    keeps_quotes: bool = False

    @property
    def needed_files(self) -> list[str]:
        """The files that must exist to read it."""
        extra = self.row_filter.list_file if self.row_filter else ""
        return [self.name, extra] if extra else [self.name]

    def rows(self, folder: str, columns: Sequence[str] = ()) -> Iterator[Row]:
        """Streams the rows of the split.

        Args:
          folder: The task's folder.
          columns: The columns to read; none for those of the examples.
        """
        columns = columns or self.columns.names
        compared = self.row_filter.columns if self.row_filter else ()
        rows = read_rows(
            os.path.join(folder, self.name),
            [*columns, *compared],
            self.header,
            skips_broken_rows=self.skips_broken_rows,
            keeps_quotes=self.keeps_quotes,
        )
        return self.row_filter.select(rows, folder) if self.row_filter else rows


@dataclasses.dataclass(frozen=True)
class ClassificationTask:
    """The files of a task, its labels and its metrics.

    Attributes:
      name: As its authors write it.
      label_names: The classes in the order of their numbers; empty for regression.
      files: Split (train, dev, dev_mismatched, test, test_mismatched) -> the files that
        may hold it, of which the first that exists is read.
      metrics: Names for `bert_tf.evaluation.glue`.
      folder: Usual name of the folder of its files; empty if there is none.
      label_aliases: Other word for a class -> its name in `label_names`.
      positive_label: The positive class of F1; empty for the second one.
      label_range: Smallest and largest number of a regression.
      download_name: Its name in `python -m bert_tf data download`; empty for own files.
      notes: Lines about its files, for the log.
      kind: What it predicts.
    """

    name: str
    label_names: tuple[str, ...]
    files: Mapping[str, tuple[SplitFile, ...]]
    metrics: tuple[str, ...] = ("accuracy",)
    folder: str = ""
    label_aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    positive_label: str = ""
    label_range: tuple[float, float] = (-math.inf, math.inf)
    download_name: str = ""
    notes: tuple[str, ...] = ()
    kind: Kind = Kind.CLASSES

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers."""
        return self.kind is Kind.NUMBERS

    @property
    def numbers(self) -> dict[str, int]:
        """Class, or another word for it -> its number."""
        numbers = {name: number for number, name in enumerate(self.label_names)}
        aliases = self.label_aliases.items()
        return numbers | {alias: numbers[name] for alias, name in aliases}

    @property
    def positive_number(self) -> int:
        """The number of the positive class of F1."""
        if not self.positive_label:
            return 1
        return self.label_names.index(self.positive_label)

    def find_file(self, data_dir: str, split: str) -> tuple[str, SplitFile]:
        """Finds the file of a split.

        Args:
          data_dir: The task's folder, or its parent.
          split: A key of `files`.

        Returns:
          The folder of the file, and the file.

        Raises:
          ValueError: if the task has no such split.
          FileNotFoundError: if there is no such file.
        """
        if split not in self.files:
            raise ValueError(
                f"`split` must be one of {', '.join(self.files)} for {self.name}. "
                f"Received: split={split}."
            )
        folders = [data_dir]
        if self.folder:
            folders.append(os.path.join(data_dir, self.folder))
        for folder in folders:
            for file in self.files[split]:
                needed = (os.path.join(folder, name) for name in file.needed_files)
                if all(map(os.path.isfile, needed)):
                    return folder, file
        wanted = [os.path.join(folder, self.files[split][0].name) for folder in folders]
        raise FileNotFoundError(
            f"`data_dir` must hold the files of {self.name}. Received: "
            f"data_dir={data_dir}, without {' or '.join(wanted)}. "
            f"{content_of(data_dir)} {self._advice(data_dir, split)}"
        )

    def _advice(self, data_dir: str, split: str) -> str:
        if not self.download_name:
            remedy = renaming(data_dir, (file.name for file in self.files[split]))
            return remedy or "Put the file there, or pass another --data_dir."
        parent, last = os.path.split(os.path.normpath(data_dir))
        output_dir = (parent or ".") if last == self.folder else data_dir
        folder = shlex.quote(os.fspath(output_dir))
        return (
            f"Download them with `python -m bert_tf data download "
            f"--name={self.download_name} --output_dir={folder}`."
        )


def content_of(data_dir: str) -> str:
    """A sentence about what is in a folder, for messages about what is not."""
    if not os.path.isdir(data_dir):
        return "There is no such folder."
    names = listed(sorted(os.listdir(data_dir)), most=10)
    return f"The folder holds {names}." if names else "The folder is empty."


def renaming(data_dir: str, names: Iterable[str]) -> str:
    """What to do if a folder has one of some files, in other letters; empty if not."""
    wanted = {name.lower(): name for name in names}
    present = sorted(os.listdir(data_dir)) if os.path.isdir(data_dir) else []
    odd = [name for name in present if name.lower() in wanted]
    return f"Rename {odd[0]} to {wanted[odd[0].lower()]}." if odd else ""


def require_one_dev_file(data_dir: str, names: Iterable[str]) -> None:
    """Raises a ValueError if a folder has several of the names of a development file.

    A compressed file beside the same one that is not does not count.
    """
    there = [name for name in names if os.path.isfile(os.path.join(data_dir, name))]
    there = list(dict.fromkeys(map(without_gz, there)))
    if len(there) > 1:
        raise ValueError(
            "`data_dir` must hold one development file. Received: "
            f"data_dir={data_dir}, with {', '.join(there)}. Move the others away."
        )


class TextExample(NamedTuple):
    """One text, or a pair of texts, to be classified.

    Attributes:
      text_a: The text, or the first of two.
      text_b: The second text, or None.
      label: The number of its class, the numbers of its labels, the number of a
        regression, or None if unknown.
      location: File and line, for messages.
    """

    text_a: str
    text_b: str | None
    label: int | float | tuple[int, ...] | None
    location: str


def read_examples(
    task: ClassificationTask, data_dir: str, split: str, *, needs_labels: bool = True
) -> list[TextExample]:
    """Reads the examples of a split.

    Args:
      task: A task of `bert_tf.data.tasks.glue_tasks` or `...custom_task`.
      data_dir: The task's folder, or its parent.
      split: A key of `task.files`.
      needs_labels: Whether to read the labels, if the file has them. Prediction does
        not, since they may be placeholders.

    Returns:
      The examples in the order of the file, at least one.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the task has no such split, or the file is not valid; the message
        names file and line.
    """
    folder, file = task.find_file(data_dir, split)
    if not needs_labels:
        file = dataclasses.replace(file, columns=file.columns.without_label())
    columns, numbers, classes = file.columns, task.numbers, task.label_names
    examples = []
    for row in file.rows(folder):
        text_b = text_of(row, columns.text_b) if columns.text_b else None
        label = None
        if columns.label and task.is_regression:
            label = number_of(row, columns.label, task.label_range)
        elif columns.label or columns.labels:
            found = [
                class_number(row.location, columns.label, name, numbers, classes)
                for name in names_of(row, columns, task.kind)
            ]
            label = tuple(found) if task.kind is Kind.LABELS else found[0]
        examples.append(
            TextExample(text_of(row, columns.text_a), text_b, label, row.location)
        )
    require_examples(examples, os.path.join(folder, file.name), task, split)
    return examples


def require_examples(
    examples: Sequence[object], path: str, task: ClassificationTask, split: str
) -> None:
    """Raises a ValueError if a file holds no examples."""
    if not examples:
        raise ValueError(
            f"{path}: there are no examples for {task.name}, {split}. Use a file with "
            "examples."
        )


def text_of(row: Row, column: str) -> str:
    """A text of a row.

    Raises:
      ValueError: if it is not a string, naming the location.
    """
    value = row.values[column]
    if not isinstance(value, str):
        raise ValueError(
            f"{row.location}: {column!r} must be text. Received: {quoted(value)}. Put "
            "it in quotes, remove the row, or use another column."
        )
    return value


def encode_examples(
    examples: Iterable[TextExample], tokenizer: WordPieceTokenizer, max_seq_length: int
) -> TokenSequences:
    """Encodes texts as [CLS] a [SEP], pairs as [CLS] a [SEP] b [SEP], truncated.

    Args:
      examples: n texts or pairs.
      tokenizer: The model's tokenizer.
      max_seq_length: Maximum number of tokens of a sequence, at least 3. Tokens are
        dropped at the end of the longer text of a pair, one by one, as in
        google-research/bert; as there, a second text without tokens is ignored.

    Returns:
      n sequences, without padding.

    Raises:
      ValueError: if `max_seq_length` is too small.
    """
    if max_seq_length < _MIN_SEQ_LENGTH:
        raise ValueError(
            f"`max_seq_length` must be at least {_MIN_SEQ_LENGTH}. Received: "
            f"max_seq_length={max_seq_length}."
        )
    _, _, cls_id, sep_id, _ = tokenizer.special

    def sequence(example: TextExample) -> tuple[list[int], list[int]]:
        first, second = tokenizer.encode([example.text_a, example.text_b or ""])
        if not second:
            return pair_sequence(first[: max_seq_length - 2], None, cls_id, sep_id)
        sizes = truncated_lengths(len(first), len(second), max_seq_length - 3)
        # A second text without tokens has no [SEP] either.
        rest = second[: sizes[1]] or None
        return pair_sequence(first[: sizes[0]], rest, cls_id, sep_id)

    return TokenSequences.join(map(sequence, examples))
