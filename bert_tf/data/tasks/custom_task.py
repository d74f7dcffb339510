"""Makes a classification task from a user's own train, dev and test files."""

import dataclasses
import os
from collections.abc import Iterable, Sequence

from bert_tf.config.task_settings import FILE_FORMATS
from bert_tf.data.tasks.classification import (
    DEV_NAMES,
    ClassificationTask,
    SplitFile,
    content_of,
    renaming,
    require_one_dev_file,
)
from bert_tf.data.tasks.label_names import doubtful_names, quoted, quoted_list
from bert_tf.data.tasks.row_labels import ColumnNames, Kind, names_of
from bert_tf.data.tasks.table_columns import check_columns, separator_advice
from bert_tf.data.tasks.tables import column_names
from bert_tf.files import extension

_SPLITS = ("train", "dev", "test")
_MAX_DIGITS = 18
_METRICS = {
    Kind.CLASSES: ("accuracy",),
    Kind.NUMBERS: ("pearson", "spearman"),
    Kind.LABELS: ("micro_f1", "macro_f1"),
}

# Names of columns in published data sets; the first one that exists is taken.
_PAIRS = (
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
)
_TEXTS = ("text_a", "text", "sentence", "review", "content")
_LABELS = ("label", "labels", "gold_label", "class", "category", "target", "score")


def own_task(
    file_format: str,
    data_dir: str,
    columns: ColumnNames | None = None,
    *,
    is_regression: bool = False,
    is_multi_label: bool = False,
    splits: Sequence[str] = ("train",),
    label_names: Sequence[str] = (),
    usual_columns: ColumnNames | None = None,
) -> ClassificationTask:
    """Inspects the files and describes their task.

    Args:
      file_format: tsv or csv (the first line names the columns), jsonl (one object per
        line) or parquet. It is the extension of the files train, dev and test, which
        may be compressed: train.jsonl.gz. `DEV_NAMES` are other names of dev.
      data_dir: The folder that holds them; only those of `splits` must exist.
      columns: Their names. If `text_a` is empty, common names of texts are tried; if it
        is given, an empty `text_b` means that there is only one text. For an empty
        `label`, common names are tried too.
      is_regression: Whether labels are numbers instead of classes.
      is_multi_label: Whether a text has any number of labels: a list, words with commas
        between, or a column of 0 and 1 for each. The names of such columns are the
        `label` of `columns`, with commas between.
      splits: The files to read, of train, dev and test; columns are found in the first
        of them.
      label_names: The classes, if they are known. Default: the labels of train, sorted:
        whole numbers by value, anything else as words.
      usual_columns: Names to try before the common ones.

    Returns:
      The task, for `bert_tf.data.tasks.classification.read_examples`.

    Raises:
      FileNotFoundError: if there is no such file, or no train file for the classes.
      ValueError: if columns or labels are not valid.
    """
    if file_format not in FILE_FORMATS:
        raise ValueError(
            f"`file_format` must be one of {', '.join(FILE_FORMATS)}. Received: "
            f"file_format={file_format}."
        )
    if "dev" in splits:
        require_one_dev_file(data_dir, _file_names("dev", file_format))
    train = _path(data_dir, "train", file_format)
    kind = Kind.NUMBERS if is_regression else Kind.CLASSES
    if is_multi_label:
        kind, columns = Kind.LABELS, _separate_labels(columns or ColumnNames())
        label_names = label_names or columns.labels
    needs_classes = not (is_regression or label_names)
    first = splits[0] if splits and not needs_classes else "train"
    path = _path(data_dir, first, file_format)
    if not os.path.isfile(path):
        what = "classes are found in it" if path == train else "it is to be read"
        remedy = renaming(data_dir, _file_names(first, file_format))
        remedy = remedy or _other_formats(data_dir, first) or "Put the file there."
        raise FileNotFoundError(
            f"`data_dir` must hold {os.path.basename(path)}: {what}. Received: "
            f"data_dir={data_dir}, without it. {content_of(data_dir)} {remedy}"
        )
    columns = _find_columns(
        columns or ColumnNames(),
        usual_columns or ColumnNames(),
        path,
        needs_label=needs_classes or {*splits} != {"test"},
    )
    paths = {name: _path(data_dir, name, file_format) for name in _SPLITS}
    files = {n: SplitFile(os.path.basename(p), columns) for n, p in paths.items()}
    test = paths["test"]
    wanted = {columns.label, *columns.labels} - {""}
    if os.path.isfile(test) and wanted - {*column_names(test)}:
        files["test"] = SplitFile(os.path.basename(test), columns.without_label())
    notes = _unread(paths[name] for name in splits)
    if needs_classes:
        label_names, more = find_label_names(files["train"], data_dir, kind)
        notes += more
        check_classes(train, columns.label, label_names)
    return ClassificationTask(
        file_format,
        () if kind is Kind.NUMBERS else tuple(label_names),
        {name: (file,) for name, file in files.items()},
        _METRICS[kind],
        notes=tuple(notes),
        kind=kind,
    )


def _separate_labels(columns: ColumnNames) -> ColumnNames:
    """The columns with those of several labels, if their names have commas between."""
    labels = tuple(name.strip() for name in columns.label.split(","))
    if len(labels) == 1:
        return columns
    if len({*labels}) < len(labels) or not all(labels):
        raise ValueError(
            "`label_column` must name each column once, with commas between. Received: "
            f"label_column={columns.label}. Correct it."
        )
    return dataclasses.replace(columns, label="", labels=labels)


def _path(data_dir: str, split: str, file_format: str) -> str:
    """The file of a split; compressed if there is only that."""
    names = _file_names(split, file_format)
    paths = [os.path.join(data_dir, name) for name in names]
    return next(filter(os.path.isfile, paths), paths[0])


def _other_formats(data_dir: str, split: str) -> str:
    """The --task_name for files of a split in other formats; empty without any."""
    names = [x for x in FILE_FORMATS if os.path.isfile(_path(data_dir, split, x))]
    return f"Pass {' or '.join(f'--task_name={x}' for x in names)}." if names else ""


def _unread(paths: Iterable[str]) -> list[str]:
    """A line for each file that is also there compressed."""
    return [
        f"{path}.gz is not read, since {path} is there."
        for path in paths
        if os.path.isfile(f"{path}.gz")
    ]


def _file_names(split: str, file_format: str) -> list[str]:
    """Names that the file of a split may have, the first one first."""
    names = DEV_NAMES if split == "dev" else (split,)
    endings = ("",) if file_format == "parquet" else ("", ".gz")
    return [f"{name}.{file_format}{ending}" for name in names for ending in endings]


def _find_columns(
    columns: ColumnNames, usual: ColumnNames, path: str, *, needs_label: bool
) -> ColumnNames:
    """Finds the columns that are not given; `usual` names are tried first."""
    present = column_names(path)
    location = f"{path}, line 1"
    texts = (columns.text_a, columns.text_b)
    if not columns.text_a:
        texts = find_text_columns(present, [usual])
        if texts is None:
            raise _no_column(path, present, is_text=True)
    text_a, text_b = texts
    label, labels = columns.label, columns.labels
    if not label and not labels and {*usual.labels} <= {*present}:
        labels = usual.labels
    if not label and not labels and needs_label:
        label = find_label_column(present, [usual], taken=texts)
        if not label:
            raise _no_column(path, present, is_text=False)
    found = ColumnNames(text_a, text_b, label, labels)
    found = found if needs_label else found.without_label()
    check_columns(found.names, present, location)
    return found


def find_text_columns(
    present: Sequence[str], usual: Iterable[ColumnNames]
) -> tuple[str, str] | None:
    """The columns of the texts, the second empty where there is one; None without any.

    Args:
      present: The columns of a table.
      usual: Names to try before the common ones.
    """
    first = [(each.text_a, each.text_b) for each in usual if each.text_a]
    return _first_match([*first, *_PAIRS, *((name, "") for name in _TEXTS)], present)


def find_label_column(
    present: Sequence[str], usual: Iterable[ColumnNames], *, taken: Iterable[str]
) -> str:
    """The column of the labels; empty without one.

    Args:
      present: The columns of a table.
      usual: Names to try before the common ones.
      taken: Columns of texts.
    """
    names = [*(each.label for each in usual if each.label), *_LABELS]
    others = {name.lower() for name in taken}
    free = [(name, "") for name in names if name.lower() not in others]
    return (_first_match(free, present) or ("", ""))[0]


def _first_match(
    choices: Sequence[tuple[str, str]], present: Sequence[str]
) -> tuple[str, str] | None:
    """The first choice whose names all exist, in upper or lower case."""
    names = {name.lower(): name for name in present} | {name: name for name in present}
    for choice in choices:
        if all(name in names for name in choice if name):
            return names[choice[0]], names[choice[1]] if choice[1] else ""
    return None


def _no_column(path: str, present: Sequence[str], *, is_text: bool) -> ValueError:
    what, option, common = "labels", "--label_column", ", ".join(_LABELS)
    if is_text:
        what, option, common = "texts", "--text_a_column", ", ".join(_TEXTS)
        pairs = ", ".join(map(" and ".join, _PAIRS))
        common += f"; of two texts {pairs}"
    has_header = extension(path) in (".tsv", ".csv")
    header = "The first line must be a header with the names of the columns. "
    location = f"{path}, line 1"
    advice = separator_advice(location, present) or (
        f"{header if has_header else ''}Name the column with {option}, or use a common "
        f"name: {common}."
    )
    return ValueError(
        f"{location}: no column has a common name for {what}. Received: "
        f"{quoted_list(present)}. {advice}"
    )


def find_label_names(
    file: SplitFile, data_dir: str, kind: Kind = Kind.CLASSES
) -> tuple[tuple[str, ...], list[str]]:
    """The classes of a file, sorted: whole numbers by value, anything else as words.

    Args:
      file: With a column of labels.
      data_dir: The folder that it is in.
      kind: Whether a row has one class, or any number of labels.

    Returns:
      The classes, and sentences about labels that look like mistakes.

    Raises:
      ValueError: if a label is missing, or is a number that is not whole.
    """
    if file.columns.labels:
        return file.columns.labels, []
    column = file.columns.label
    path = os.path.join(data_dir, file.name)
    spellings: dict[str, str] = {}
    places: dict[str, str] = {}
    for row in file.rows(data_dir):
        names = names_of(row, file.columns, kind)
        for name in names:
            places.setdefault(name, row.location)
        is_one = kind is Kind.CLASSES
        written = [str(row.values[column])] if is_one else names
        spellings |= dict(zip(written, names, strict=True))
    names = {*spellings.values()}
    notes = [f"warning: {path}: {each}." for each in doubtful_names(spellings)]
    if all(map(_is_whole, names)):
        return tuple(sorted(names, key=lambda name: (int(name), name))), notes
    if names and all(map(_is_number, names)):
        example = min(name for name in names if not _is_whole(name))
        raise ValueError(
            f"{places[example]}: {column!r} must be classes: words, or whole numbers "
            f"of at most {_MAX_DIGITS} digits. Received: {example!r}. Change them, or "
            "pass --is_regression to predict numbers."
        )
    return tuple(sorted(names)), notes


def find_label(file: SplitFile, data_dir: str, kind: Kind, names: Sequence[str]) -> str:
    """The first of some labels that a file has, with its location; empty without."""
    for row in file.rows(data_dir):
        for name in names_of(row, file.columns, kind):
            if name in names:
                return f"{quoted(name)} ({row.location})"
    return ""


def check_classes(path: str, column: str, names: Sequence[str]) -> None:
    """Raises a ValueError if there are fewer than two classes."""
    if len(names) < 2:
        raise ValueError(
            f"{path}: {column!r} must have two or more classes. Received: "
            f"{quoted_list(names) if names else 'no examples'}. Use a training file "
            "that has examples of all classes."
        )


def _is_whole(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
