"""What a run's folder was used for before, compared with what is to be done."""

import os
from typing import Any, NamedTuple

from bert_tf.data.tasks.custom_task import FILE_FORMATS
from bert_tf.interop.classifier_labels import CLASSIFY, TASK_FILE, read_description
from bert_tf.jobs.starting_point import StartingPoint

PRETRAINING = "pretraining"
SQUAD = "squad"
_NEGATIVE = "version_2_with_negative"
_TITLES = {
    PRETRAINING: "pre-training",
    SQUAD: "SQuAD",
    CLASSIFY: "classification",
}


class FolderTask(NamedTuple):
    """A task that checkpoints are for.

    Attributes:
      kind: pretraining, squad or classify.
      name: Of a classification, as --task_name; of SQuAD, the version; empty if it is
        not known, or there is none.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        """For messages."""
        title = _TITLES.get(self.kind, self.kind)
        return f"{title} ({self.name})" if self.name else title

    def is_same(self, other: "FolderTask") -> bool:
        """Whether both are one task; files of one's own may change their format."""
        names = {self._plain_name(), other._plain_name()} - {""}
        return self.kind == other.kind and len(names) < 2

    def _plain_name(self) -> str:
        name = self.name.lower().replace("-", "").replace("_", "")
        return FILE_FORMATS[0] if name in FILE_FORMATS else name


def require_same_task(config: Any, start: StartingPoint, task: FolderTask) -> None:  # noqa: ANN401
    """Refuses to go on in the folder of another task.

    Args:
      config: The settings, in groups `files, training`.
      start: Where the run begins.
      task: What is to be done.

    Raises:
      ValueError: naming both tasks.
    """
    folder = config.files.output_dir
    known = _find_task(folder, start) if start.is_own else None
    if known is None or known.is_same(task):
        return
    raise ValueError(
        f"`output_dir` must not hold checkpoints of another task. Received: {folder} "
        f"with those of {known}, for {task}. "
        + _advice(folder, known, task, config.training.do_train)
    )


def _advice(folder: str, known: FolderTask, task: FolderTask, do_train: bool) -> str:
    """What to do about a folder of another task."""
    named = f"Name another output_dir, with --init_checkpoint={folder}"
    if not do_train and known.kind == task.kind:
        return f"{named} if this model is meant."
    if not do_train:
        return f"Name an output_dir with checkpoints of {task}."
    if task.kind == PRETRAINING:  # It needs heads that these weights lack.
        return "Name another output_dir, or add --overwrite_output_dir to replace them."
    are_classes = known.kind == task.kind == CLASSIFY
    head = " (and --new_head for other classes)" if are_classes else ""
    return (
        f"{named}{head} to start from these weights; or add --overwrite_output_dir to "
        "replace them."
    )


def _find_task(folder: str, start: StartingPoint) -> FolderTask | None:
    """The task of a folder's checkpoints; None if no file says it."""
    settings = start.position.config if start.position else {}
    if SQUAD in settings:
        return squad_task(settings[SQUAD].get(_NEGATIVE))
    if "task" in settings:
        return FolderTask(CLASSIFY, str(settings["task"].get("task_name", "")))
    if settings:
        return FolderTask(PRETRAINING)
    description = read_description(folder)
    if "task" not in description:
        return None
    if description["task"] == SQUAD:
        return squad_task(description.get(_NEGATIVE))
    return FolderTask(description["task"], str(description.get("task_name", "")))


def squad_task(version_2_with_negative: bool | None) -> FolderTask:
    """SQuAD, of the version that has questions without an answer, or of the first."""
    names = {True: "2.0", False: "1.1"}
    return FolderTask(SQUAD, names.get(version_2_with_negative, ""))


def remove_description(folder: str) -> None:
    """Removes the description of a task whose checkpoints are being replaced."""
    path = os.path.join(folder, TASK_FILE)
    if os.path.isfile(path):
        os.remove(path)
