"""What a classifier's head predicts, from the files next to its weights."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from bert_tf.data.text.tokenizer_settings import TASK_FILE
from bert_tf.interop.keras_hub import is_preset
from bert_tf.interop.weight_files import Source
from bert_tf.json_files import read_object

REGRESSION = "regression"
MULTI_LABEL = "multi_label_classification"
# The tasks in task.json of models with such a head: of texts, of words, of endings.
CLASSIFY, TAG, CHOOSE = KINDS = ("classify", "tag", "choose")
# Their classes in transformers, by kind.
ARCHITECTURES = {
    CLASSIFY: "BertForSequenceClassification",
    TAG: "BertForTokenClassification",
    CHOOSE: "BertForMultipleChoice",
}


class Head(NamedTuple):
    """A classifier's outputs.

    Attributes:
      num_outputs: Their number; 0: the weights have no classifier.
      names: The class of each, in order; empty if no file names them (LABEL_0, LABEL_1,
        ... do not count), or if the output is a number.
      problem_type: As in transformers; "regression" for numbers; empty if unknown,
        which means one class of several.
      path: The file with this information, or empty.
      description: The content of task.json next to the weights; empty without it.
      kind: classify, tag or choose; empty if unknown.
    """

    num_outputs: int = 0
    names: tuple[str, ...] = ()
    problem_type: str = ""
    path: str = ""
    description: Mapping[str, Any] = {}
    kind: str = ""


NO_HEAD = Head()


def read_description(folder: str) -> dict[str, Any]:
    """The content of task.json in a folder; empty if there is none.

    Raises:
      ValueError: if it is not a JSON object, or its task no string.
    """
    path = os.path.join(folder, TASK_FILE)
    description = read_object(path)
    if is_preset(description):
        return {}
    if not isinstance(description.get("task", ""), str):
        raise _bad(path, "`task` must be a string", description["task"])
    return description


def read_head(source: Source, num_outputs: int) -> Head:
    """Reads the names of a classifier's outputs: task.json's, or the config's.

    Args:
      source: The weights.
      num_outputs: Outputs of their classifier; 0: there is none, and the files are not
        read for it.

    Raises:
      ValueError: if a file cannot be used, there are more or fewer names than outputs,
        or two files name different classes.
    """
    folder = os.path.dirname(source.path)
    description = read_description(folder)
    head = Head(num_outputs, description=description)
    if not num_outputs:
        return head
    found = [
        _from_description(description, os.path.join(folder, TASK_FILE)),
        _from_config(source.config_file),
    ]
    for each in found:
        _check_number(each, num_outputs)
    task, config = found
    if task.names and config.names and task.names != config.names:
        raise ValueError(
            f"{task.path} and {config.path} name different classes: "
            f"{list(task.names)} and {list(config.names)}. Remove the names that are "
            "not those of the model."
        )
    names = task if task.names or not config.names else config
    known = task if task.problem_type else config
    return head._replace(
        names=() if num_outputs == 1 else names.names,
        problem_type=known.problem_type,
        path=names.path or known.path,
        kind=task.kind or config.kind,
    )


def kind_of(source: Source, description: Mapping[str, Any]) -> str:
    """The task of a model, by its task.json or its config.json; empty if unknown.

    Args:
      source: The weights.
      description: The content of task.json; empty without it.
    """
    known = str(description.get("task") or "")
    if known or not source.config_file:
        return known
    return _kind_of_class(read_object(source.config_file))


def _kind_of_class(values: Mapping[str, Any]) -> str:
    """The kind of the class that a config of transformers names; empty if unknown."""
    theirs = values.get("architectures")
    return "".join(kind for kind, x in ARCHITECTURES.items() if theirs == [x])


def head_of(description: Mapping[str, Any], num_outputs: int) -> Head:
    """The head of a model of this program, from the content of its task.json.

    Args:
      description: That content; empty without it.
      num_outputs: Outputs of the classifier; 0: there is none.
    """
    head = Head(num_outputs, description=description)
    if not num_outputs:
        return head
    known = _from_description(description, TASK_FILE)
    names = () if num_outputs == 1 else known.names
    return head._replace(names=names, problem_type=known.problem_type, kind=known.kind)


def _from_description(description: Mapping[str, Any], path: str) -> Head:
    kind = description.get("task")
    if kind not in KINDS:
        return Head()
    problem_type = str(description.get("problem_type") or "")
    if "label_names" not in description:
        return Head(problem_type=problem_type, path=path, kind=kind)
    names = description["label_names"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise _bad(path, "`label_names` must be a list of strings", names)
    _check_unique(names, path, "label_names")
    if not names:
        problem_type = REGRESSION
    return Head(len(names) or 1, tuple(names), problem_type, path, kind=kind)


def _from_config(path: str) -> Head:
    """The head in transformers' config.json; other bert_config.json files have none."""
    if not path:
        return Head()
    values = read_object(path)
    problem_type = str(values.get("problem_type") or "")
    head = Head(problem_type=problem_type, path=path, kind=_kind_of_class(values))
    if head.kind == CHOOSE:  # Its one output has no name; the file may have two.
        return head
    names = _numbered_names(values, path)
    if not names:
        return head
    if names == default_names(len(names)):
        return head._replace(num_outputs=len(names))
    return head._replace(num_outputs=len(names), names=names)


def _numbered_names(values: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The names of id2label, or else of label2id; empty without both."""
    by_number = values.get("id2label")
    if by_number is None and values.get("label2id") is not None:
        by_name = values["label2id"]
        if not isinstance(by_name, dict):
            raise _bad(path, "`label2id` must be an object of names", by_name)
        by_number = {str(number): name for name, number in by_name.items()}
    if by_number is None:
        return ()
    if not isinstance(by_number, dict):
        raise _bad(path, "`id2label` must be an object of names by number", by_number)
    numbers = list(map(str, range(len(by_number))))
    if {*map(str, by_number)} != {*numbers}:
        problem = f"`id2label` must number its names from 0 to {len(numbers) - 1}"
        raise _bad(path, problem, by_number)
    by_number = {str(number): name for number, name in by_number.items()}
    if not all(isinstance(name, str | int) for name in by_number.values()):
        raise _bad(path, "`id2label` must have strings as names", by_number)
    names = [str(by_number[number]) for number in numbers]
    _check_unique(names, path, "id2label")
    _check_inverse(values, names, path)
    return tuple(names)


def _check_inverse(values: Mapping[str, Any], names: list[str], path: str) -> None:
    """Refuses a label2id that contradicts the names, except LABEL_0, LABEL_1, ..."""
    theirs = values.get("label2id")
    if isinstance(theirs, dict):  # Some files have the numbers as strings.
        theirs = {name: str(number) for name, number in theirs.items()}
    expected, defaults = (
        {name: str(number) for number, name in enumerate(each)}
        for each in (names, default_names(len(names)))
    )
    if theirs is not None and theirs not in (expected, defaults, {}):
        raise _bad(
            path,
            f"`label2id` must number the names as `id2label` does, {names}",
            theirs,
        )


def _check_unique(names: list[str], path: str, key: str) -> None:
    if len({*names}) < len(names):
        raise _bad(path, f"`{key}` must not give two classes the same name", names)
    if not all(map(str.strip, names)):
        raise _bad(path, f"`{key}` must not hold an empty name", names)


def _check_number(head: Head, num_outputs: int) -> None:
    if head.num_outputs not in (0, num_outputs):
        problem = f"it must name {num_outputs} classes, one for each output"
        raise _bad(head.path, problem, list(head.names) or head.num_outputs)


def _bad(path: str, problem: str, received: object) -> ValueError:
    return ValueError(
        f"{path}: {problem}. Received: {str(received)[:400]}. Correct the file: it "
        "names the outputs of the weights next to it."
    )


def default_names(count: int) -> tuple[str, ...]:
    """The names that transformers gives to unnamed classes."""
    return tuple(f"LABEL_{number}" for number in range(count))


def describe_head(head: Head) -> dict[str, Any]:
    """The content of task.json for weights; empty if their task is unknown."""
    if head.kind in (TAG, CHOOSE):
        names = {"label_names": list(head.names)} if head.names else {}
        return {**head.description, "task": head.kind, **names}
    known: dict[str, Any] = {}
    if head.names or (head.problem_type == REGRESSION and head.num_outputs == 1):
        known = {"task": CLASSIFY, "label_names": list(head.names)}
    if head.problem_type:
        known |= {"task": CLASSIFY, "problem_type": head.problem_type}
    return {**head.description, **known}
