"""What `predict` reads: texts of the command line, lines, and files of examples."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TextIO

from bert_tf.cli.prediction_streams import is_stream, name_of, open_stream
from bert_tf.data.tasks.classification import SplitFile, text_of
from bert_tf.data.tasks.custom_task import find_label_column, find_text_columns
from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.data.tasks.row_labels import ColumnNames
from bert_tf.data.tasks.squad_files import read_squad
from bert_tf.data.tasks.table_columns import separator_advice
from bert_tf.data.tasks.tables import column_names, numbered_lines
from bert_tf.data.text.input_files import utf8_remedy
from bert_tf.errors import counted, shown
from bert_tf.files import extension
from bert_tf.json_files import parse_json

Example = dict[str, Any]

# Characters of a line: a file without line ends would fill the memory.
_MAX_LINE = 16 << 20
# Endings of tables with a header line.
_TABLES = (".tsv", ".csv", ".parquet")
# The key of a label that the input has: the predicted one is `label`.
GIVEN = "given_"


class Task(NamedTuple):
    """A kind of prediction.

    Attributes:
      name: fill-mask, squad, classify, embed, tag or choose.
      required: Names of the texts that each input must have.
      predict: Inputs -> the predictions for each.
      load: The model, which is loaded at the first call.
      check: Raises a ValueError if an input cannot be predicted.
      files: The files of the model's task, whose columns are known.
      parse: Checks a JSON object, given its location for messages, where `required`
        alone does not tell whether it is an input; raises a ValueError.
      read: Reads a file of examples; None for one with an input per line.
      takes_pairs: Whether the model was trained on two texts; None if unknown.
    """

    name: str
    required: tuple[str, ...]
    predict: Callable[[list[Example]], Iterable[Example]]
    load: Callable[[], Any]
    check: Callable[[Example], None] = lambda example: None
    files: tuple[SplitFile, ...] = ()
    parse: Callable[[Example, str], Example] | None = None
    read: Callable[[str], Iterator[Example] | None] = lambda path: None
    takes_pairs: bool | None = None

    @property
    def reads_tables(self) -> bool:
        """Whether inputs are one text or two, also of a table."""
        return self.name in ("classify", "embed")

    @property
    def usual(self) -> list[ColumnNames]:
        """The columns that the model was trained with."""
        return [file.columns for file in self.files]


def read_inputs(
    options: argparse.Namespace, task: Task, stream: TextIO | None = None
) -> Iterator[Example]:
    """The inputs as dicts that hold the required texts.

    Args:
      options: The command line.
      task: What is predicted.
      stream: The lines of a stream, if it is open already.

    Raises:
      ValueError: naming the line that is wrong.
    """
    path = options.input
    if options.text:
        is_single = task.name == "classify" and task.takes_pairs is False
        inputs = [[text] for text in options.text] if is_single else [options.text]
        yield from (_from_words(texts, task) for texts in inputs)
    elif is_stream(path):
        file = stream or open_stream(path)
        lines = iter(lambda: file.readline(_MAX_LINE + 1), "")
        numbered = _report_quotes(enumerate(lines, start=1), name_of(path), task)
        yield from _parse(numbered, name_of(path), task)
    elif (examples := task.read(path)) is not None:
        yield from examples
    elif not task.reads_tables and _is_refused_table(path, task):
        raise ValueError(
            f"`input` of {task.name} must hold a text or JSON on each line. Received: "
            f"{path}, a table: tables are read for classify, embed and choose. Store "
            "its rows as JSON lines, in a .jsonl file."
        )
    elif task.name == "squad" and _holds_squad(path, task):
        for one in read_squad(path, version_2_with_negative=True, needs_answers=False):
            texts = {"question": one.question, "context": one.context}
            yield {"id": one.question_id, **texts}
    elif task.reads_tables and (file := _table(path, task)):
        yield from _from_table(path, file)
    else:
        yield from _parse(numbered_lines(path), path, task)


def ask(task: Task) -> Iterator[list[Example]]:
    """Prompts for lines on the terminal; one that is wrong is reported, and no more."""
    texts = ", ".join(f'"{name}": ...' for name in task.required)
    form = f"{{{texts}}}" if len(task.required) > 1 else "text"
    mask = " with [MASK]" if task.name == "fill-mask" else ""
    print(f"Type a {form}{mask} per line; Ctrl-D ends.", file=sys.stderr)
    lines = open_stream("-")
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = lines.readline(_MAX_LINE + 1)
        if not line:
            print(file=sys.stderr)
            return
        try:
            example = parse_line(line, "The line", task)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        if example is not None:
            yield [example]


def _from_words(texts: list[str], task: Task) -> Example:
    """The input of the command line."""
    names = ("text_a", "text_b") if task.reads_tables else task.required
    if is_choice := task.name == "choose":
        names = ("context", *["ending"] * max(2, len(texts) - 1))
    if not len(names if is_choice else task.required) <= len(texts) <= len(names):
        raise ValueError(
            f"{task.name} takes {' and '.join(names)}. Received: "
            f"{counted(len(texts), 'text')}. Pass several inputs as lines of --input."
        )
    for text in texts:
        try:
            text.encode()  # What is not UTF-8 was read as surrogates.
        except UnicodeEncodeError:
            raise ValueError(
                f"The text must be UTF-8. Received: {shown(text)}. Correct it, or "
                "pass it in a file as --input."
            ) from None
    example = dict(zip(names, texts, strict=False))
    if is_choice:
        example = {"context": texts[0], "endings": texts[1:]}
    task.check(example)
    return task.parse(example, "The input") if task.parse else example


def _parse(
    lines: Iterable[tuple[int, str]], path: str, task: Task
) -> Iterator[Example]:
    """Parses numbered lines into examples; an error names its line.

    Blank lines before the last text are reported: results do not match line numbers.
    """
    first, num_blank, num_pending = 0, 0, 0
    is_jsonl = extension(path) == ".jsonl"
    for number, line in lines:
        location = f"{path}, line {number}"
        example = parse_line(line, location, task, may_be_string=is_jsonl)
        if example is None:
            first = first or number
            num_pending += 1
            continue
        num_blank, num_pending = num_blank + num_pending, 0
        yield example
    if num_blank:
        print(
            f"warning: {path}: blank lines are left out and have no result: "
            f"{num_blank:,}, the first of them line {first}.",
            file=sys.stderr,
        )


def _report_quotes(
    lines: Iterable[tuple[int, str]], path: str, task: Task
) -> Iterator[tuple[int, str]]:
    """The lines of a stream, with a warning of the first that is a JSON string."""
    is_reported = len(task.required) > 1
    for number, line in lines:
        if not is_reported and _is_json_string(line):
            is_reported = True
            print(
                f"warning: {path}, line {number}: the quotes are part of the text. "
                "JSON strings are read from .jsonl files alone; pass such a file as "
                "--input, or lines without quotes.",
                file=sys.stderr,
            )
        yield number, line


def _is_json_string(line: str) -> bool:
    try:
        return line.startswith('"') and isinstance(parse_json(line), str)
    except ValueError:
        return False


def parse_line(
    line: str, location: str, task: Task, *, may_be_string: bool = False
) -> Example | None:
    """A line as an example; None if it is blank.

    Args:
      line: A text, or a JSON object.
      location: For messages.
      task: What is predicted.
      may_be_string: Whether a line in quotes is a JSON string.

    Raises:
      ValueError: if it is wrong, naming the location.
    """
    if len(line) > _MAX_LINE:
        raise ValueError(
            f"{location}: a line must have at most {_MAX_LINE:,} characters. Correct "
            "the file, or fetch it again."
        )
    try:
        line.encode()  # What is not UTF-8 was read as surrogates.
    except UnicodeEncodeError:
        raise ValueError(f"{location}: not UTF-8. {utf8_remedy()}") from None
    if "\0" in line:
        raise ValueError(
            f"{location}: it holds bytes that are 0, as text in UTF-16 does. Store the "
            "text as UTF-8: `iconv -f UTF-16LE -t UTF-8`, or -f UTF-16BE, converts it."
        )
    if not (text := line.strip()):
        return None
    try:
        example = _example(text, task, may_be_string=may_be_string)
    except ValueError as error:
        raise ValueError(
            f"{location}: must be a JSON object with the texts "
            f"{', '.join(task.required)}{error}. Received: {text[:80]!r}."
        ) from None
    try:
        task.check(example)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from None
    return task.parse(example, location) if task.parse else example


def _example(text: str, task: Task, *, may_be_string: bool) -> Example:
    """A line as a dict with the required texts; the error says what else it is."""
    is_string = may_be_string and text.startswith('"')
    if len(task.required) == 1 and not (text.startswith("{") or is_string):
        return {task.required[0]: text}
    try:
        example = parse_json(text)
    except ValueError as error:
        raise ValueError(f" ({error})") from None
    if len(task.required) == 1 and isinstance(example, str):
        return {task.required[0]: example}
    if not isinstance(example, dict):
        raise ValueError("")
    if task.parse:
        return example
    if task.reads_tables and "text_a" not in example:
        example = _with_usual_names(example, task)
    is_good = all(isinstance(example.get(name), str) for name in task.required)
    if not is_good or not isinstance(example.get("text_b") or "", str):
        raise ValueError("")
    return example


def _with_usual_names(example: Example, task: Task) -> Example:
    """A line of a file of examples: its texts become text_a and text_b."""
    found = find_text_columns(list(example), task.usual)
    if found is None:
        return example
    names = dict(zip(found, ("text_a", "text_b"), strict=True))
    return {names.get(name, name): value for name, value in example.items()}


def _is_refused_table(path: str, task: Task) -> bool:
    """Whether a file is a table, which would be read as lines of text."""
    return extension(path) in (_TABLES if task.name == "squad" else (".parquet",))


def _holds_squad(path: str, task: Task) -> bool:
    """Whether a file is JSON of SQuAD: its first line is no input by itself."""
    if extension(path) != ".json":
        return False
    try:
        for _, line in numbered_lines(path):
            return parse_line(line, path, task) is None
    except ValueError:
        pass
    return True


def _table(path: str, task: Task) -> SplitFile | None:
    """How to read a table of examples; None if each line of the file is a text.

    Raises:
      ValueError: if it has columns of which none is known to be a text.
    """
    name = os.path.basename(path)
    known = [file for file in task.files if os.path.basename(file.name) == name]
    ending = extension(name)
    if ending == ".jsonl" or not (known or ending in _TABLES):
        return None
    keeps = any(file.keeps_quotes for file in known)
    present = column_names(path, keeps_quotes=keeps)
    for file in known:
        if file.header and len(file.header) == len(present):
            return file
    texts = find_text_columns(present, task.usual)
    if texts is not None:
        label = find_label_column(present, task.usual, taken=texts)
        if texts[1] and task.takes_pairs is False:
            trained = [each.text_a for each in task.usual]
            raise ValueError(
                f"{path}, line 1: the model was trained on single texts, so there must "
                f"be one column of texts. Received: {quoted_list(texts)}. Name it "
                f"{quoted_list(trained[:1])}, as in training, or pass a model that was "
                "trained on pairs."
            )
        skips = any(file.skips_broken_rows for file in known)
        columns = ColumnNames(*texts, label)
        return SplitFile(name, columns, (), None, skips, keeps)
    if len(present) == 1 and ending not in (".csv", ".parquet"):
        return None
    if advice := separator_advice(f"{path}, line 1", present):
        raise ValueError(
            f"{path}, line 1: there must be a column of texts. Received: "
            f"{quoted_list(present)}. {advice}"
        )
    if len(present) == 1 and present[0]:
        return SplitFile(name, ColumnNames(present[0]))
    second = "" if task.takes_pairs is False else ", and that of second texts text_b"
    raise ValueError(
        f"{path}, line 1: no column has the name of a text. Received: "
        f"{quoted_list(present)}. Name the column of the texts text_a in the first "
        f"line{second}."
    )


def _from_table(path: str, file: SplitFile) -> Iterator[Example]:
    """Rows as examples; their labels and other named columns are kept."""
    columns = file.columns
    names = {columns.text_a: "text_a", columns.text_b: "text_b"}
    names[columns.label] = f"{GIVEN}label"
    others = [] if file.header else [*filter(None, column_names(path))]
    if left_out := [n for n in ("text_a", "text_b") if n in {*others} - {*names}]:
        print(
            f"warning: {path}: {quoted_list(left_out)} is not read: the text is "
            f"{quoted_list([n for n in (columns.text_a, columns.text_b) if n])}.",
            file=sys.stderr,
        )
    # A column with the name of an input would replace that.
    taken = {*columns.names, "text_a", "text_b", f"{GIVEN}label"}
    wanted = [*columns.names, *(name for name in others if name not in taken)]
    file = dataclasses.replace(file, name=os.path.basename(path), row_filter=None)
    for row in file.rows(os.path.dirname(path), wanted):
        text_of(row, columns.text_a)
        if columns.text_b and row.values[columns.text_b] is not None:
            text_of(row, columns.text_b)
        yield {names.get(name, name): value for name, value in row.values.items()}
