"""Multiple choice in SWAG's form: a context, and endings of which one is right."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bert_tf.config.task_settings import SWAG
from bert_tf.data.tasks.classification import (
    DEV_NAMES,
    ClassificationTask,
    SplitFile,
    TextExample,
    encode_examples,
    require_examples,
    require_one_dev_file,
)
from bert_tf.data.tasks.label_names import quoted, quoted_list
from bert_tf.data.tasks.row_labels import ColumnNames, Kind
from bert_tf.data.tasks.table_columns import check_columns
from bert_tf.data.tasks.tables import column_names
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.data.text.tokenization import WordPieceTokenizer

_ENDINGS = ("csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz", "parquet")
_NAMES = {
    "train": ("train",),
    "dev": DEV_NAMES,
    "test": ("test",),
}
# Names of the context, and of what all endings begin with: SWAG's, HellaSwag's.
_CONTEXTS = (("sent1", "sent2"), ("ctx_a", "ctx_b"), ("context", ""), ("ctx", ""))
_LISTS = ("endings", "choices")
_ENDING = re.compile(r"ending_?[0-9]{1,9}")


class Question(NamedTuple):
    """A context and its endings.

    Attributes:
      context: The text before.
      beginning: What all endings begin with; may be empty.
      endings: At least two.
      label: The number of the right one, from 0; None if unknown.
      location: File and line, for messages.
    """

    context: str
    beginning: str
    endings: tuple[str, ...]
    label: int | None = None
    location: str = ""


def swag_task(
    data_dir: str, splits: Sequence[str], columns: ColumnNames
) -> ClassificationTask:
    """The task of a folder of tables with questions.

    Args:
      data_dir: The folder.
      splits: Those to read.
      columns: Names that are given; the others are found.

    Returns:
      The task, for `read_questions`.

    Raises:
      FileNotFoundError, ValueError: if a file is missing, or has no such columns.
    """
    files = {
        split: tuple(
            SplitFile(f"{name}.{ending}", columns)
            for name in names
            for ending in _ENDINGS
        )
        for split, names in _NAMES.items()
    }
    task = ClassificationTask(SWAG, (), files, kind=Kind.CHOICES)
    if "dev" in splits:
        require_one_dev_file(data_dir, (file.name for file in files["dev"]))
    for split in splits:
        folder, file = task.find_file(data_dir, split)
        path = os.path.join(folder, file.name)
        found = find_columns(
            column_names(path), path, columns, needs_label=split != "test"
        )
        files[split] = (SplitFile(file.name, found),)
    return task


def find_columns(
    present: Sequence[str],
    location: str,
    given: ColumnNames | None = None,
    *,
    needs_label: bool = False,
) -> ColumnNames:
    """Finds the columns of questions.

    Args:
      present: Those of a table, or the keys of an object.
      location: For messages.
      given: Names that are decided.
      needs_label: Whether there must be the number of the right ending.

    Raises:
      ValueError: listing the columns that there are.
    """
    given = given or ColumnNames()
    pairs = _CONTEXTS
    if given.text_a:
        pairs = ((given.text_a, given.text_b),)
        check_columns([*filter(None, pairs[0])], present, location)
    fits = [pair for pair in pairs if {*filter(None, pair)} <= {*present}]
    endings = tuple(name for name in _LISTS if name in present)[:1]
    numbered = [name for name in present if _ENDING.fullmatch(name)]
    by_number = sorted(numbered, key=lambda name: int(re.sub(r"\D", "", name)))
    endings = endings or tuple(by_number)
    if not fits or not endings:
        raise ValueError(
            f"{location}: there must be columns of a context (sent1 and sent2, or "
            "context) and of its endings (ending0, ending1, ..., or endings with a "
            f"list). Received: {quoted_list(present)}. Rename the columns."
        )
    label = (given.label or "label") if needs_label else ""
    found = ColumnNames(*fits[0], label, endings=endings)
    check_columns(found.names, present, location)
    return found


def question_of(
    values: Mapping[str, object], columns: ColumnNames, location: str
) -> Question:
    """A row as a question.

    Raises:
      ValueError: if a text or a label is not valid, naming the location.
    """
    found = [values[name] for name in columns.endings]
    if len(found) == 1 and isinstance(found[0], list | tuple):
        found = list(found[0])
    context = values[columns.text_a]
    beginning = values[columns.text_b] if columns.text_b else ""
    for name, text in (("context", context), ("beginning", beginning)):
        if not isinstance(text, str):
            raise ValueError(
                f"{location}: the {name} must be text. Received: {quoted(text)}. "
                "Correct or remove the line."
            )
    if len(found) < 2 or not all(isinstance(x, str) and x.strip() for x in found):
        raise ValueError(
            f"{location}: there must be two or more endings, texts that are not empty. "
            f"Received: {len(found)}: {quoted(found)}. Correct or remove the line."
        )
    label = None
    if columns.label:
        label = _label(values[columns.label], len(found), location)
    return Question(context, beginning, tuple(found), label, location)


def _label(value: object, count: int, location: str) -> int:
    text = str(value).strip()
    is_number = text.isdecimal() and len(text) < 10 and not isinstance(value, bool)
    if not is_number or int(text) >= count:
        raise ValueError(
            f"{location}: the label must be the number of an ending, from 0 to "
            f"{count - 1}. Received: {quoted(value)}. Correct or remove the line."
        )
    return int(text)


def read_questions(
    task: ClassificationTask, data_dir: str, split: str, *, needs_labels: bool = True
) -> list[Question]:
    """Reads the questions of a split, each with the same number of endings.

    Raises:
      FileNotFoundError, ValueError: if the file is missing or not valid; the message
        names file and line.
    """
    folder, file = task.find_file(data_dir, split)
    columns = file.columns if needs_labels else file.columns.without_label()
    questions: list[Question] = []
    for row in SplitFile(file.name, columns).rows(folder):
        one = question_of(row.values, columns, row.location)
        questions.append(one)
        expected = len(questions[0].endings)
        if len(one.endings) != expected:
            raise ValueError(
                f"{one.location}: each question must have as many endings as the first "
                f"one, {expected}. Received: {len(one.endings)}. Correct the line, or "
                "put such questions into another file."
            )
    require_examples(questions, os.path.join(folder, file.name), task, split)
    return questions


def encode_questions(
    questions: Sequence[Question], tokenizer: WordPieceTokenizer, max_seq_length: int
) -> TokenSequences:
    """Encodes each ending as [CLS] context [SEP] beginning ending [SEP], truncated.

    Args:
      questions: n questions, each with K endings.
      tokenizer: The model's tokenizer.
      max_seq_length: Maximum number of tokens of a sequence; see `encode_examples`.

    Returns:
      n x K sequences, those of a question one after the other.
    """
    pairs = [
        TextExample(one.context, f"{one.beginning} {ending}".strip(), None, "")
        for one in questions
        for ending in one.endings
    ]
    return encode_examples(pairs, tokenizer, max_seq_length)
