"""What a model is judged on: minimal pairs, a text, rated pairs, and tasks."""

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_tf.config.task_settings import FILE_FORMATS
from bert_tf.config.text import TextConfig
from bert_tf.data.commands.extract import (
    describe_left_out,
    find_input,
    plain_text,
    raw_documents,
)
from bert_tf.data.tasks.classification import (
    ClassificationTask,
    SplitFile,
    TextExample,
    read_examples,
    text_of,
)
from bert_tf.data.tasks.custom_task import (
    find_label_column,
    find_text_columns,
    own_task,
)
from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.data.tasks.row_labels import ColumnNames, Kind
from bert_tf.data.tasks.tables import column_names, read_rows
from bert_tf.data.text.documents import Sentences
from bert_tf.data.text.sentence_splitting import split_sentences

_LOGGER = logging.getLogger(__name__)

BLIMP, TASKS = "blimp", "tasks"
# Names of the rows of the table.
ROWS = (BLIMP, "text", "sts", "probes")
# Columns of BLiMP's files; the last two name what a pair is about.
_PAIR_COLUMNS = ("sentence_good", "sentence_bad", "linguistics_term", "UID")
_SPLITS = ("train", "dev")


class MinimalPair(NamedTuple):
    """Two sentences that differ in little, of which one is right.

    Attributes:
      good: The right one.
      bad: The other.
      term: The phenomenon that the pair is about.
      paradigm: How the pair was made.
      location: File and line, for messages.
    """

    good: str
    bad: str
    term: str
    paradigm: str
    location: str


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What there is to judge a model on; fields of what is not given are empty.

    Attributes:
      data_dir: Folder in which pairs and tasks are looked for.
      blimp: File or folder of the pairs.
      pairs: Minimal pairs.
      text: Files of the documents.
      documents: The sentences of each document.
      sts: File of the rated pairs.
      rated: Pairs of texts whose labels are their similarity.
      tasks: Folders -> the tasks of their train and dev files; None without train.
      rows: Those of the table, of `ROWS`.
    """

    data_dir: str
    blimp: str = ""
    pairs: Sequence[MinimalPair] = ()
    text: str = ""
    documents: Sequence[Sentences] = ()
    sts: str = ""
    rated: Sequence[TextExample] = ()
    tasks: dict[str, ClassificationTask | None] = dataclasses.field(
        default_factory=dict
    )
    rows: Collection[str] = ROWS


def read_inputs(
    data_dir: str,
    blimp: str = "",
    text: str = "",
    sts: str = "",
    *,
    rows: Collection[str] = ROWS,
    input_format: str = "auto",
    text_field: str = "text",
) -> Inputs:
    """Reads all that is given, and what `data_dir` has.

    Args:
      data_dir: The pairs are in its folder blimp, and each folder in its folder tasks
        has train and dev files; what it lacks is left out.
      blimp: See `read_minimal_pairs`; default: that in `data_dir`.
      text: See `TextConfig`, as the last two; empty for none.
      sts: See `read_rated_pairs`; empty for none.
      rows: For which to read, of `ROWS`.
      input_format: Of the text.
      text_field: Of the text.

    Raises:
      OSError, ValueError: if something cannot be read or is wrong; the message names
        file and line.
    """
    default = os.path.join(data_dir, BLIMP)
    blimp = blimp or (default if os.path.exists(default) else "")
    has_pairs = blimp and BLIMP in rows
    documents: list[Sentences] = []
    if text:
        config = TextConfig(
            input=text, input_format=input_format, text_field=text_field
        )
        documents = list(_read_documents(config))
        if not documents:
            raise ValueError(
                f"`text` must hold text. Received: text={text}, without any."
            )
    return Inputs(
        data_dir,
        blimp,
        read_minimal_pairs(blimp) if has_pairs else (),
        text,
        documents,
        sts,
        read_rated_pairs(sts) if sts else (),
        _find_tasks(os.path.join(data_dir, TASKS)) if "probes" in rows else {},
        rows,
    )


def _read_documents(config: TextConfig) -> Iterator[Sentences]:
    """The sentences of each document; text files are one each."""
    left_out: Counter[str] = Counter()
    for document, _ in raw_documents(find_input(config, "text"), config):
        paragraphs = (plain_text(document, left_out) or "").splitlines()
        sentences = [each for part in paragraphs for each in split_sentences(part)]
        if sentences:
            yield sentences
    for line in describe_left_out(left_out):
        _LOGGER.warning(line)


def read_minimal_pairs(path: str) -> list[MinimalPair]:
    """Reads minimal pairs.

    Args:
      path: A table with BLiMP's columns, see `read_rows`; or a folder with .jsonl files
        in it or in its folders, which are read in the order of their names.

    Raises:
      FileNotFoundError: if the folder has no such files.
      ValueError: if there are no pairs, or a line is wrong.

    Source: Warstadt et al. 2020 (arXiv:1912.00582).
    """
    files = [path]
    if os.path.isdir(path):
        files = sorted(map(str, Path(path).rglob("*.jsonl")))
        if not files:
            raise FileNotFoundError(
                "`blimp` must be a file, or a folder with .jsonl files. Received: "
                f"blimp={path}, without any. Pass the folder that `python -m bert_tf "
                "data download --name=blimp` makes."
            )
    pairs = [
        MinimalPair(*(text_of(row, name) for name in _PAIR_COLUMNS), row.location)
        for file in files
        for row in read_rows(file, _PAIR_COLUMNS)
    ]
    if not pairs:
        raise ValueError(f"{path}: there are no pairs. Pass a file of BLiMP.")
    return pairs


def read_rated_pairs(path: str) -> list[TextExample]:
    """Reads pairs of texts with a number, which is larger for similar ones.

    Args:
      path: A table that names its columns, see `read_rows`: those of two texts (such as
        sentence1 and sentence2) and of the number (such as score).

    Raises:
      ValueError: if columns are missing, or a line is wrong.
    """
    present = column_names(path, keeps_quotes=True)
    text_a, text_b = find_text_columns(present, []) or ("", "")
    label = find_label_column(present, [], taken=(text_a, text_b))
    if not (text_b and label):
        raise ValueError(
            f"{path}, line 1: the columns must be named, such as sentence1, sentence2 "
            f"and score. Received: {quoted_list(present)}. Add a line with these names."
        )
    folder, name = os.path.split(path)
    file = SplitFile(name, ColumnNames(text_a, text_b, label), keeps_quotes=True)
    task = ClassificationTask("similarity", (), {"dev": (file,)}, kind=Kind.NUMBERS)
    return read_examples(task, folder, "dev")


def _find_tasks(folder: str) -> dict[str, ClassificationTask | None]:
    """The tasks in the folders of a folder, in the order of their names."""
    tasks: dict[str, ClassificationTask | None] = {}
    for inner in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else ():
        if not inner.is_dir():
            continue
        tasks[str(inner)] = None
        for file_format in FILE_FORMATS:
            name = f"train.{file_format}"
            if (inner / name).is_file() or (inner / f"{name}.gz").is_file():
                task = own_task(file_format, str(inner), splits=_SPLITS)
                for note in task.notes:
                    _LOGGER.warning(note)
                tasks[str(inner)] = task
                break
    return tasks
