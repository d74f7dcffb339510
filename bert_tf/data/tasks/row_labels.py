"""Labels in a row of a table: a class, a number, or any number of labels."""

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence

from bert_tf.data.tasks.label_names import quoted, quoted_list, without_blanks
from bert_tf.data.tasks.tables import Row

# The square of the difference of two labels must fit into float32.
_LARGEST_LABEL = 1e12
# What columns of labels hold, as programs write it.
_FLAGS = {
    **dict.fromkeys(("1", "1.0", "true"), True),
    **dict.fromkeys(("0", "0.0", "false"), False),
}


class Kind(enum.Enum):
    """What a task predicts; the value is for messages."""

    CLASSES = "one of several classes"
    NUMBERS = "a number"
    LABELS = "any number of labels"
    TAGS = "a tag for each word"
    CHOICES = "one of several endings"


@dataclasses.dataclass(frozen=True)
class ColumnNames:
    """The columns of a table that make an example.

    Attributes:
      text_a: The text, or the first of two.
      text_b: The second text; empty if there is one text only. In multiple choice, what
        all endings begin with.
      label: The class, the number, the list of labels or the number of an ending; empty
        if there is none.
      labels: Instead of `label`, a column for each of several labels, with 0 or 1.
      endings: In multiple choice, a column for each ending, or one with a list of them.
    """

    text_a: str = ""
    text_b: str = ""
    label: str = ""
    labels: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()

    def without_label(self) -> "ColumnNames":
        """The same columns for a file without labels."""
        return dataclasses.replace(self, label="", labels=())

    @property
    def names(self) -> list[str]:
        """All of them."""
        texts = filter(None, (self.text_a, self.text_b, self.label))
        return [*texts, *self.labels, *self.endings]


def names_of(row: Row, columns: ColumnNames, kind: Kind) -> list[str]:
    """The class of a row, or its labels: any number of them.

    Labels are a list, or words with commas between; or a column of 0 and 1 for each.

    Raises:
      ValueError: if one is not valid, naming the location.
    """
    if kind is not Kind.LABELS:
        return [label_name(row, columns.label)]
    if columns.labels:
        return [name for name in columns.labels if _is_true(row, name)]
    value = row.values[columns.label]
    if isinstance(value, str):
        value = value.split(",") if value.strip() else []
    values = value if isinstance(value, list) else [value]
    found = [Row(row.location, {columns.label: each}) for each in values]
    names = list(dict.fromkeys(label_name(each, columns.label) for each in found))
    if len(names) < len(values) and _FLAGS.keys() >= {*map(str.lower, names)}:
        raise ValueError(
            f"{row.location}: {columns.label!r} must be the labels that the text has. "
            f"Received: {quoted(row.values[columns.label])}, which looks like a 1 or 0 "
            "for each label. Write the names or numbers of the labels that are 1."
        )
    return names


def _is_true(row: Row, column: str) -> bool:
    value = row.values[column]
    found = _FLAGS.get(str(value).strip().lower())
    if found is None:
        raise ValueError(
            f"{row.location}: {column!r} must be 1 or 0, whether the text has that "
            f"label. Received: {quoted(value)}. Correct or remove the line."
        )
    return found


def label_name(row: Row, column: str) -> str:
    """The class of a row, as a string without needless white space.

    Raises:
      ValueError: if it is not a string, a whole number or a Boolean, or is empty.
    """
    value = row.values[column]
    name = without_blanks(str(value)) if isinstance(value, str | int) else ""
    if not name or not _is_unicode(name):
        raise ValueError(
            f"{row.location}: {column!r} must be a class: a word, a whole number, true "
            f"or false. Received: {quoted(value)}. Correct the line."
        )
    return name


def _is_unicode(name: str) -> bool:
    """Whether a string can be written to a file; a lone surrogate of JSON cannot."""
    return name == name.encode(errors="replace").decode()


def class_number(
    location: str,
    column: str,
    name: str,
    numbers: Mapping[str, int],
    label_names: Sequence[str],
) -> int:
    """The number of a class.

    Args:
      location: File and line, for messages.
      column: Where the name was found.
      name: The class.
      numbers: Class, or another word for it -> its number.
      label_names: The classes.

    Raises:
      ValueError: if the task has no such class.
    """
    if name not in numbers:
        raise ValueError(
            f"{location}: {column!r} must be one of {quoted_list(label_names)}. "
            f"Received: {quoted(name)}. Correct or remove the line."
        )
    return numbers[name]


def number_of(row: Row, column: str, label_range: tuple[float, float]) -> float:
    """The number of a row.

    Raises:
      ValueError: if it is none, or outside the range.
    """
    value = row.values[column]
    smallest, largest = label_range
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    is_valid = abs(number) <= _LARGEST_LABEL and smallest <= number <= largest
    if not is_valid:
        limits = "" if smallest == -math.inf else f" from {smallest:g} to {largest:g}"
        if abs(number) > _LARGEST_LABEL:
            limits = f" from {-_LARGEST_LABEL:g} to {_LARGEST_LABEL:g}"
        raise ValueError(
            f"{row.location}: {column!r} must be a number{limits}. Received: "
            f"{quoted(value)}. Correct or remove the line."
        )
    return number
