"""The columns of a table: what is missing or twice, and what separates them."""

from collections.abc import Iterable, Sequence

from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.errors import did_you_mean
from bert_tf.files import extension

# Extension -> what separates the columns of such a file, and its name.
_SEPARATORS = {".csv": (",", "commas"), ".tsv": ("\t", "tabs")}
_OTHERS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}


def check_columns(
    columns: Sequence[str], present: Sequence[str] | dict[str, object], location: str
) -> None:
    """Refuses a table without a requested column.

    Args:
      columns: The requested columns.
      present: All columns of the table.
      location: File and line, for the message.

    Raises:
      ValueError: if a column is missing; the message lists those of the table.
    """
    for column in columns:
        if column not in present:
            advice = (
                separator_advice(location, present)
                or did_you_mean(column, filter(None, present))
                or "Use one of these columns, or correct the file."
            )
            raise ValueError(
                f"{location}: there must be a column {column!r}. Received: "
                f"{quoted_list(present)}. {advice}"
            )


def check_single(header: Sequence[str], location: str) -> None:
    """Refuses a column that occurs twice; those without a name are not meant."""
    for column in filter(None, header):
        if list(header).count(column) > 1:
            raise ValueError(
                f"{location}: there must be only one column {column!r}. Received: "
                f"{quoted_list(header)}. Rename the other, or use another column."
            )


def separator_advice(location: str, present: Iterable[str]) -> str:
    """What to do if the only column is several, with another separator; else empty.

    Args:
      location: A file, and a line.
      present: All columns of the table.
    """
    names = list(present)
    ending = extension(location.rpartition(", line ")[0])
    wanted, plural = _SEPARATORS.get(ending, ("", ""))
    if len(names) != 1 or not wanted:
        return ""
    for separator, found in _OTHERS.items():
        if separator != wanted and separator in names[0]:
            return (
                f"The columns of a {ending} file must be separated by {plural}; "
                f"this line has {found}. Save the table with {plural}."
            )
    return ""
