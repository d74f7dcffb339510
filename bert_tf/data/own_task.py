"""A classification task out of a user's own train, dev and test files."""

import os
from collections.abc import Sequence

from bert_tf.data.tables import check_columns, column_names
from bert_tf.data.text_examples import (
    ClassificationTask,
    ColumnNames,
    SplitFile,
    label_name,
)

FILE_FORMATS = ("tsv", "jsonl")

# What columns are called in published data sets; the first that is there is taken.
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
) -> ClassificationTask:
    """Looks into train, and into test if it is there, and describes the task.

    Args:
      file_format: tsv (the first line names the columns) or jsonl (an object per
        line). It is the ending of the files train, dev and test.
      data_dir: The folder that holds them; dev and test need not be there.
      columns: Their names. If `text_a` is empty, usual names of texts are looked for;
        if it is given, an empty `text_b` means that there is one text only. An empty
        `label` is looked for too.
      is_regression: Whether labels are numbers, and not classes.

    Returns:
      The task, for `bert_tf.data.text_examples.read_examples`. Its classes are the
      labels of train, sorted: whole numbers by value, anything else as words.

    Raises:
      FileNotFoundError: if there is no train file.
      ValueError: if columns or labels are not as they should be.
    """
    if file_format not in FILE_FORMATS:
        raise ValueError(
            f"`file_format` must be one of {', '.join(FILE_FORMATS)}. Received: "
            f"file_format={file_format}."
        )
    train, dev, test = (f"{name}.{file_format}" for name in ("train", "dev", "test"))
    path = os.path.join(data_dir, train)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"`data_dir` must hold {train}. Received: data_dir={data_dir}. Put the "
            "file there: it has the columns and the classes."
        )
    columns = _find_columns(columns or ColumnNames(), column_names(path), path)
    test_columns = columns
    test_path = os.path.join(data_dir, test)
    if os.path.isfile(test_path) and columns.label not in column_names(test_path):
        test_columns = columns.without_label()
    train_file = SplitFile(train, columns)
    return ClassificationTask(
        file_format,
        () if is_regression else _find_label_names(train_file, data_dir),
        {
            "train": (train_file,),
            "dev": (SplitFile(dev, columns),),
            "test": (SplitFile(test, test_columns),),
        },
        ("pearson", "spearman") if is_regression else ("accuracy",),
    )


def _find_columns(
    columns: ColumnNames, present: Sequence[str], path: str
) -> ColumnNames:
    """Guesses the columns that are not given."""
    if columns.text_b and not columns.text_a:
        raise ValueError(
            "The first text's column must be given with the second one's. Received: "
            f"text_b={columns.text_b} alone."
        )
    place = f"{path}, line 1"
    text_a, text_b = columns.text_a, columns.text_b
    if not text_a:
        text_a, text_b = _guess(
            [*_PAIRS, *((name, "") for name in _TEXTS)], present, place, "texts"
        )
    label = columns.label
    if not label:
        taken = (text_a.lower(), text_b.lower())
        free = [(name,) for name in _LABELS if name not in taken]
        [label] = _guess(free, present, place, "labels")
    found = ColumnNames(text_a, text_b, label)
    wanted = [name for name in (text_a, text_b, label) if name]
    check_columns(wanted, present, place)
    return found


def _guess(
    choices: Sequence[tuple[str, ...]], present: Sequence[str], place: str, what: str
) -> tuple[str, ...]:
    """The first choice whose names are all there, in whatever case."""
    names = {name.lower(): name for name in present}
    for choice in choices:
        if all(name in names for name in choice if name):
            return tuple(names.get(name, "") for name in choice)
    raise ValueError(
        f"{place}: no column has a usual name for {what}. Received: "
        f"{', '.join(map(repr, present))}. Say which column holds the {what}."
    )


def _find_label_names(train: SplitFile, data_dir: str) -> tuple[str, ...]:
    """The classes of the training file."""
    column = train.columns.label
    path = os.path.join(data_dir, train.name)
    names = {label_name(row, column) for row in train.rows(data_dir)}
    if len(names) < 2:
        raise ValueError(
            f"{path}: {column!r} must have two or more classes. Received: "
            f"{', '.join(map(repr, names)) or 'no examples'}. Give a training file "
            "with all classes."
        )
    if all(map(_is_whole, names)):
        return tuple(sorted(names, key=int))
    if all(map(_is_number, names)):
        example = min(name for name in names if not _is_whole(name))
        raise ValueError(
            f"{path}: {column!r} must be classes: words or whole numbers. Received: "
            f"{example!r}. Write them so, or ask for regression."
        )
    return tuple(sorted(names))


def _is_whole(name: str) -> bool:
    return name.isascii() and name.removeprefix("-").isdigit()


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
