"""The classes of a task, in the order of the model's head.

The names of the head decide the order of its outputs. The labels of the data are looked
up among them: the order of the classes in the data does not matter.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from bert_tf.config.finetuning import ClassifierConfig
from bert_tf.config.task_settings import CONLL, FILE_FORMATS, SWAG
from bert_tf.data.tasks.choices import swag_task
from bert_tf.data.tasks.classification import ClassificationTask, SplitFile
from bert_tf.data.tasks.conll import conll_task
from bert_tf.data.tasks.custom_task import find_label, find_label_names, own_task
from bert_tf.data.tasks.glue_tasks import find_task
from bert_tf.data.tasks.label_names import quoted_list, same_names
from bert_tf.data.tasks.row_labels import ColumnNames, Kind
from bert_tf.interop.classifier_labels import (
    CHOOSE,
    CLASSIFY,
    MULTI_LABEL,
    REGRESSION,
    TAG,
    Head,
    default_names,
)


def choose_task(
    config: ClassifierConfig, head: Head, *, is_own: bool = False
) -> tuple[ClassificationTask, list[str]]:
    """The task of --task_name, its classes in the order of the model's head.

    Args:
      config: The settings.
      head: The head of the weights that the run starts from.
      is_own: Whether these weights are in output_dir; decides the advice.

    Returns:
      The task, and lines for the log.

    Raises:
      FileNotFoundError, ValueError: see `find_task` and `own_task`; or if the classes
        of the data are not those of the head.
    """
    settings, advice = config.task, _advice(config, is_own)
    name = settings.task_name.lower()
    wanted = {CONLL: TAG, SWAG: CHOOSE}.get(name, CLASSIFY)
    if head.num_outputs and head.kind not in ("", wanted):
        raise ValueError(
            f"The model's head must be one for {wanted}. Received: one for {head.kind} "
            f"({head.path}), with task_name={settings.task_name}. {advice}."
        )
    if name == CONLL:
        return _tag_task(config, head, advice)
    if name == SWAG:
        return _choice_task(config, head, advice)
    if name not in FILE_FORMATS:
        task = find_task(settings.task_name, settings.xnli_language)
        return fit_head(task, head, advice)
    if not (config.training.do_train or head.num_outputs or _has_train_file(config)):
        raise ValueError(
            "Without `do_train` the weights must have a classifier. Received: "
            f"init_checkpoint={config.files.init_checkpoint} without output_weights. "
            "Pass --do_train, which trains one, or a model trained for classes."
        )
    if config.training.do_train or not head.num_outputs:
        return fit_head(_own_task(config, head), head, advice)
    return _evaluated_task(config, head, advice)


def _tag_task(
    config: ClassifierConfig, head: Head, advice: str
) -> tuple[ClassificationTask, list[str]]:
    """The task of tagged words; the data may have fewer tags than the head."""
    splits, data_dir, names = config.training.splits, config.task.data_dir, head.names
    if not (config.training.do_train or head.num_outputs):
        raise ValueError(
            "Without `do_train` the weights must have a head for tags. Received: "
            f"init_checkpoint={config.files.init_checkpoint} without output_weights. "
            "Pass --do_train, which trains one, or a model trained for them."
        )
    if head.num_outputs and not names:
        names = default_names(head.num_outputs)
    found = names
    if config.training.do_train:
        task = conll_task(data_dir, splits)
        found = task.label_names
    task = conll_task(data_dir, splits, names or found)
    if unknown := [name for name in found if name not in task.label_names]:
        raise _other_classes(task.name, unknown, head, advice)
    return task, list(task.notes)


def _choice_task(
    config: ClassifierConfig, head: Head, advice: str
) -> tuple[ClassificationTask, list[str]]:
    """The task of questions with endings, which have no names."""
    settings = config.task
    if head.num_outputs != 1 and (head.num_outputs or not config.training.do_train):
        raise ValueError(
            "The model's head must have one output, a score of an ending. Received: "
            f"{head.num_outputs} outputs ({head.path or 'no head'}). {advice}."
        )
    columns = _given_columns(config)
    return swag_task(settings.data_dir, config.training.splits, columns), []


def _given_columns(config: ClassifierConfig) -> ColumnNames:
    task = config.task
    return ColumnNames(task.text_a_column, task.text_b_column, task.label_column)


def _has_train_file(config: ClassifierConfig) -> bool:
    settings = config.task
    name = f"train.{settings.task_name.lower()}"
    return os.path.isfile(os.path.join(settings.data_dir, name))


def _own_task(
    config: ClassifierConfig, head: Head, label_names: Sequence[str] = ()
) -> ClassificationTask:
    """The task of the user's own files; by default with the classes of train."""
    settings, training = config.task, config.training
    is_number = head.num_outputs == 1 and not training.do_train
    return own_task(
        settings.task_name.lower(),
        settings.data_dir,
        _given_columns(config),
        is_regression=settings.is_regression or is_number,
        is_multi_label=settings.is_multi_label,
        splits=config.training.splits,
        label_names=label_names,
        usual_columns=_usual_columns(head.description),
    )


def _usual_columns(description: Mapping[str, object]) -> ColumnNames:
    """The columns that the model was trained with."""
    columns = description.get("columns")
    if not isinstance(columns, dict):
        return ColumnNames()
    names = ("text_a", "text_b", "label")
    texts = {name: str(columns.get(name, "")) for name in names}
    lists = {name: columns.get(name) for name in ("labels", "endings")}
    return ColumnNames(
        **texts,
        **{n: tuple(map(str, x)) for n, x in lists.items() if isinstance(x, list)},
    )


def known_files(description: Mapping[str, object]) -> tuple[SplitFile, ...]:
    """The files of the task that a task.json describes; empty if it is not known."""
    columns = _usual_columns(description)
    if columns.text_a:
        return (SplitFile("", columns),)
    try:
        task = find_task(str(description.get("task_name", "")))
    except ValueError:
        return ()
    return tuple(file for files in task.files.values() for file in files)


def takes_pairs(description: Mapping[str, object]) -> bool | None:
    """Whether the inputs of a model are two texts, by its task.json; None: unknown."""
    files = known_files(description)
    return any(file.columns.text_b for file in files) if files else None


def _evaluated_task(
    config: ClassifierConfig, head: Head, advice: str
) -> tuple[ClassificationTask, list[str]]:
    """The user's own files for a head that stays; train is read for names if needed."""
    settings, notes, names = config.task, [], head.names
    if not names and head.num_outputs > 1:
        if config.training.do_eval and _has_train_file(config):
            return fit_head(_own_task(config, head), head, advice)
        names = tuple(map(str, range(head.num_outputs)))
        notes = [
            f"warning: no file names the {head.num_outputs} classes of the model's "
            f"head: they are called {', '.join(names)}."
        ]
    task = _own_task(config, head, names)
    if head.num_outputs > 1 and not _is_of_kind(task, head):
        raise _other_classes(task.name, task.label_names, head, advice)
    if task.is_regression or not config.training.do_eval:
        return task, notes
    folder, file = task.find_file(settings.data_dir, "dev")
    found, doubts = find_label_names(file, folder, task.kind)
    defaults = dict(zip(default_names(len(names)), names, strict=True))
    same = same_names(found, names, {} if head.names else defaults)
    if unknown := [name for name in found if name not in same]:
        where = find_label(file, folder, task.kind, unknown)
        raise _other_classes(task.name, found, head, advice, where)
    task = dataclasses.replace(task, label_aliases=same)
    return task, [*notes, *doubts, *_order_note(same, names, head)]


def fit_head(
    task: ClassificationTask, head: Head, advice: str
) -> tuple[ClassificationTask, list[str]]:
    """The task with the classes of a head, in its order and under its names.

    Args:
      task: With the classes of the data.
      head: The head; without outputs, it is new and takes the data's classes.
      advice: What to do if they are not the same.

    Returns:
      The task, and lines for the log.

    Raises:
      ValueError: if the classes, or their number, differ.
    """
    notes = list(task.notes)
    if not head.num_outputs:
        return task, notes
    if task.is_regression and head.num_outputs == 1:
        return task, notes
    if head.num_outputs == 1 or not _is_of_kind(task, head):
        raise _other_classes(task.name, task.label_names, head, advice)
    names = head.names or default_names(head.num_outputs)
    same = same_names(task.label_names, names, task.label_aliases)
    if len(same) == len(task.label_names) == len(names):
        return _renamed(task, names, same), [*notes, *_order_note(same, names, head)]
    if head.names or head.num_outputs != len(task.label_names):
        raise _other_classes(task.name, task.label_names, head, advice)
    return task, [
        *notes,
        f"warning: no file names the {head.num_outputs} classes of the model's head: "
        f"their order is taken to be {', '.join(task.label_names)}.",
    ]


def _is_of_kind(task: ClassificationTask, head: Head) -> bool:
    """Whether a head with several outputs predicts what the task asks for."""
    if task.kind is Kind.LABELS:  # Our own files name it; others may leave it out.
        is_unknown = not (head.problem_type or head.description)
        return head.problem_type == MULTI_LABEL or is_unknown
    is_other = head.problem_type in (MULTI_LABEL, REGRESSION)
    return task.kind is Kind.CLASSES and not is_other


def _renamed(
    task: ClassificationTask, names: Sequence[str], same: Mapping[str, str]
) -> ClassificationTask:
    """The task with a head's names, and its own as aliases of them."""
    aliases = {a: same[name] for a, name in task.label_aliases.items()} | dict(same)
    positive = same[task.label_names[1]] if len(names) == 2 else ""
    return dataclasses.replace(
        task, label_names=tuple(names), label_aliases=aliases, positive_label=positive
    )


def _order_note(same: Mapping[str, str], names: Sequence[str], head: Head) -> list[str]:
    """A line if the classes of the data have other names than the head, or an order."""
    other = [f"{a} = {b}" for a, b in same.items() if a != b]
    if not other and [name for name in names if name in same] == list(same):
        return []
    where = f" ({head.path})" if head.path else ""
    theirs = f"; of the data, {', '.join(other)}" if other else ""
    return [f"The model's head has the classes {', '.join(names)}{where}{theirs}."]


def _other_classes(
    task_name: str, found: Sequence[str], head: Head, advice: str, unknown: str = ""
) -> ValueError:
    """The error about classes of the data that are not those of the head.

    Args:
      task_name: The task of the data.
      found: Its classes; empty for numbers.
      head: The head.
      advice: What to do.
      unknown: Name, file and line of the first one that the head does not have.
    """
    if head.num_outputs == 1:
        known = "one output, a number"
    elif head.names:
        known = f"the classes {quoted_list(head.names)}"
    else:
        known = f"{head.num_outputs} outputs without names"
    if head.problem_type:
        known += f" (problem_type={head.problem_type})"
    theirs = f"the classes {quoted_list(found)}" if found else "numbers as labels"
    where = f" ({head.path})" if head.path else ""
    first = f", of which the first unknown one is {unknown}" if unknown else ""
    return ValueError(
        f"The model's head has {known}{where}. Received: {task_name}, with {theirs}"
        f"{first}. {advice}, or use the model's names of its classes as labels."
    )


def _advice(config: ClassifierConfig, is_own: bool) -> str:
    """What to do about a head for another task."""
    if not config.training.do_train:
        return "Pass a model that was trained for such data"
    if is_own:
        return (
            "Pass another --output_dir, with --init_checkpoint="
            f"{config.files.output_dir} --new_head to train a new head on these weights"
        )
    return "Train a new head with --new_head"


def description_of(task: ClassificationTask) -> dict[str, object]:
    """The content of task.json about a task, for predictions with its model."""
    description: dict[str, object] = {
        "task": {Kind.TAGS: TAG, Kind.CHOICES: CHOOSE}.get(task.kind, CLASSIFY),
        "task_name": task.name,
    }
    if task.kind is not Kind.CHOICES:
        description["label_names"] = list(task.label_names)
    if task.kind is Kind.LABELS:
        description["problem_type"] = MULTI_LABEL
    if task.name in FILE_FORMATS:
        [file] = task.files["dev"]
        columns = dataclasses.asdict(file.columns)
        description["columns"] = {name: x for name, x in columns.items() if x != ()}
    return description
