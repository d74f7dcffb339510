"""The folder of a run: taken, compared with the run's task, and described in files."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from bert_tf.config import BertConfig
from bert_tf.config.run import RunConfig
from bert_tf.data.tasks.custom_task import FILE_FORMATS
from bert_tf.data.text.tokenizer_settings import TOKENIZER_CONFIG
from bert_tf.files import lock, remove_unfinished, whole_file, write_whole
from bert_tf.interop.classifier_labels import CLASSIFY, TASK_FILE, read_description
from bert_tf.interop.tokenizer_files import tokenizer_config
from bert_tf.interop.weight_files import ORIGINAL_CONFIG, VOCABULARY
from bert_tf.jobs.run.model_files import RunTokenizer
from bert_tf.jobs.run.resume import StartingPoint
from bert_tf.jobs.run.used_folder import set_aside_damaged, set_aside_state
from bert_tf.training import checkpoints

# Folders in output_dir: of the best checkpoint, and of the index of the records.
BEST_DIR = "best"
INDEX_CACHE_DIR = ".record_index"
# Of what a run that is refused may leave.
_CACHES = (INDEX_CACHE_DIR, "squad_windows_")
PRETRAINING = "pretraining"
SQUAD = "squad"
_NEGATIVE = "version_2_with_negative"
# Settings in task.json that change what a model reads or predicts.
_DECISIVE = (
    *("task", "label_names", "max_seq_length", "do_lower_case"),
    "version_2_with_negative",
)
_TITLES = {
    PRETRAINING: "pre-training",
    SQUAD: "SQuAD",
    CLASSIFY: "classification",
}


def _check_output_dir(path: str) -> None:
    """Makes the folder and tries to write into it.

    Raises:
      OSError: if that fails.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"`output_dir` {path} cannot be written: {error.strerror}. Pass another."
        ) from error


def _missing_folders(path: str) -> list[str]:
    """The folder and those around it that do not exist, innermost first."""
    missing = []
    path = os.path.abspath(path)
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _remove_unused(path: str, earlier: set[str], made: list[str]) -> None:
    """Removes what a run has made if that is caches alone: it was refused.

    Args:
      path: The folder of the run.
      earlier: Names that were in it before.
      made: Folders that did not exist before, innermost first.
    """
    new = set(os.listdir(path)) - earlier
    if any(not name.startswith(_CACHES) for name in new):
        return
    for name in new:
        entry = os.path.join(path, name)
        shutil.rmtree(entry) if os.path.isdir(entry) else os.remove(entry)
    with contextlib.suppress(OSError):  # Not empty, or a folder of another process.
        for folder in made:
            os.rmdir(folder)


def take_output_dir(config: RunConfig, lock_until: contextlib.ExitStack) -> list[str]:
    """Makes the folder, locks it for a training, and deletes unfinished files.

    Damaged checkpoints that are newer than a whole one are moved into other folders.

    An evaluation may run next to a training; two trainings would overwrite each other.

    Args:
      config: The settings.
      lock_until: When it is closed, it releases the lock, and removes the folder if
        the run has written nothing but caches.

    Returns:
      Lines for the log.

    Raises:
      OSError: if it cannot be written.
      RunError: if another process is training in it.
    """
    path = config.files.output_dir
    made = _missing_folders(path)
    _check_output_dir(path)
    lock_until.callback(_remove_unused, path, set(os.listdir(path)), made)
    if not config.training.do_train:
        return []
    folder = os.open(path, os.O_RDONLY)
    lock_until.callback(os.close, folder)
    lock(folder, f"training in `output_dir` {path}")
    lines = []
    for each in filter(os.path.isdir, (path, os.path.join(path, BEST_DIR))):
        lines += set_aside_state(each)
        checkpoints.remove_leftovers(each)
    remove_unfinished(os.path.join(path, INDEX_CACHE_DIR))
    return lines + set_aside_damaged(config.files)


class FolderTask(NamedTuple):
    """The task of a model.

    Attributes:
      kind: pretraining, squad or classify.
      name: --task_name of a classification, or the version of SQuAD; empty if unknown.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        title = _TITLES.get(self.kind, self.kind)
        return f"{title} ({self.name})" if self.name else title

    def is_same(self, other: "FolderTask") -> bool:
        """Whether both are one task; a user's own files may change their format."""
        names = {self._plain_name(), other._plain_name()} - {""}
        return self.kind == other.kind and len(names) < 2

    def _plain_name(self) -> str:
        name = self.name.lower().replace("-", "").replace("_", "")
        return FILE_FORMATS[0] if name in FILE_FORMATS else name


def require_same_task(
    config: RunConfig, start: StartingPoint, task: FolderTask
) -> None:
    """Refuses to resume in the folder of another task.

    Args:
      config: The settings.
      start: Where the run starts.
      task: The task of the run.

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
    named = f"Pass another --output_dir and --init_checkpoint={folder}"
    if not do_train and known.kind == task.kind:
        return f"{named} to use this model."
    if not do_train:
        return f"Pass an --output_dir with checkpoints of {task}."
    if task.kind == PRETRAINING:  # It needs heads that these weights lack.
        return "Pass another --output_dir, or --overwrite_output_dir to replace them."
    are_classes = known.kind == task.kind == CLASSIFY
    head = " (and --new_head for other classes)" if are_classes else ""
    return (
        f"{named}{head} to start from these weights, or --overwrite_output_dir to "
        "replace them."
    )


def _find_task(folder: str, start: StartingPoint) -> FolderTask | None:
    """The task of a folder's checkpoints; None if it is unknown."""
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


def write_model_files(
    output_dir: str, bert: BertConfig, tokenizer: RunTokenizer
) -> None:
    """Writes the files that a checkpoint is used with: bert_config.json and vocab.txt.

    Args:
      output_dir: The folder of the checkpoints.
      bert: The architecture.
      tokenizer: Its vocabulary and settings are written as far as they are known.
    """
    texts = {ORIGINAL_CONFIG: json.dumps(bert.to_dict(), indent=2)}
    if tokenizer.settings:
        texts[TOKENIZER_CONFIG] = tokenizer_config(
            tokenizer.settings, bert.max_position_embeddings
        )
    for name, text in texts.items():
        write_whole(os.path.join(output_dir, name), text)
    path = os.path.join(output_dir, VOCABULARY)
    vocab_file = tokenizer.vocab_file
    if vocab_file and os.path.realpath(vocab_file) != os.path.realpath(path):
        with open(vocab_file, "rb") as vocabulary, whole_file(path) as file:
            shutil.copyfileobj(vocabulary, file)


def check_description(
    path: str, task: Mapping[str, object], *, may_change: tuple[str, ...] = ()
) -> None:
    """Refuses settings that change what a trained model reads or predicts.

    Args:
      path: task.json of the training.
      task: What this run would write there.
      may_change: Names of settings that are not compared.

    Raises:
      ValueError: naming the setting.
    """
    known = read_description(os.path.dirname(path))
    for name in _DECISIVE:
        is_compared = name in known and name in task and name not in may_change
        if is_compared and known[name] != task[name]:
            raise ValueError(
                f"{path}: the model was trained with {name}={known[name]!r}. Received: "
                f"{name}={task[name]!r}. Pass the flags and classes of its training, "
                "or another --output_dir."
            )


def remove_description(folder: str) -> None:
    """Removes task.json, where the checkpoints of its task are replaced."""
    path = os.path.join(folder, TASK_FILE)
    if os.path.isfile(path):
        os.remove(path)
