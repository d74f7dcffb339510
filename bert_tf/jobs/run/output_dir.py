"""The folder of a run: taken, compared with the run's task, and described in files."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bert_tf.config import BertConfig
from bert_tf.config.paths import require_possible
from bert_tf.config.run import RunConfig
from bert_tf.config.task_settings import FILE_FORMATS, plain_name
from bert_tf.data.text.tokenizer_settings import TASK_FILE, TOKENIZER_CONFIG
from bert_tf.data.text.vocabulary import vocabulary_text
from bert_tf.errors import OtherWorkerFailed, RunError
from bert_tf.files import lock, missing_folders, remove_unfinished, whole_file
from bert_tf.interop.classifier_labels import CLASSIFY, KINDS, read_description
from bert_tf.interop.model_kind import SQUAD
from bert_tf.interop.sentence_files import EMBED
from bert_tf.interop.tokenizer_files import tokenizer_config
from bert_tf.interop.weight_files import (
    BEST_DIR,
    ORIGINAL_CONFIG,
    VOCABULARY,
    find_source,
)
from bert_tf.jobs.run.model_files import RunTokenizer
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.jobs.run.used_folder import set_aside_damaged, set_aside_state
from bert_tf.training import checkpoints

# Folders in output_dir: of the best checkpoint, of the index of the records, and of
# the windows of questions.
INDEX_CACHE_DIR = ".record_index"
CACHE_DIR = ".cache"
# Name -> content of the files that checkpoints are used with; None: no such file.
ModelFiles = dict[str, bytes | None]
PRETRAINING = "pretraining"
_NEGATIVE = "version_2_with_negative"
# Settings in task.json that change what a model reads or predicts.
_DECISIVE = (
    *("task", "label_names", "max_seq_length", "do_lower_case"),
    *("version_2_with_negative", "pooling"),
)
_TITLES = {
    PRETRAINING: "pre-training",
    SQUAD: "SQuAD",
    CLASSIFY: "classification",
    EMBED: "sentence vectors",
}


def take_output_dir(config: RunConfig, lock_until: contextlib.ExitStack) -> list[str]:
    """Makes the folder, locks it for a training, and deletes unfinished files.

    Damaged checkpoints that are newer than a whole one are moved into other folders.

    An evaluation may run next to a training; two trainings would overwrite each other.

    Args:
      config: The settings.
      lock_until: Releases the lock when it is closed.

    Returns:
      Lines for the log.

    Raises:
      OSError: if it cannot be written.
      RunError: if another process is training in it.
    """
    path = config.files.output_dir
    require_possible("output_dir", path)
    os.makedirs(path, exist_ok=True)
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


@contextlib.contextmanager
def no_traces(output_dir: str) -> Iterator[None]:
    """Deletes what a run that is refused inside has made: folders, and caches in them.

    Args:
      output_dir: Its folder, which may exist.
    """
    missing = missing_folders(output_dir)
    folders = [os.path.join(output_dir, x) for x in (CACHE_DIR, INDEX_CACHE_DIR)]
    before = {path for folder in folders for path in _files_in(folder)}
    try:
        yield
    except (RunError, OtherWorkerFailed):
        for path in (x for folder in folders for x in _files_in(folder)):
            if path not in before:
                with contextlib.suppress(OSError):
                    os.remove(path)
        for folder in [*(folders if not before else ()), *missing]:
            with contextlib.suppress(OSError):  # Missing, or not empty.
                os.rmdir(folder)
        raise


def _files_in(folder: str) -> list[str]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names]


class FolderTask(NamedTuple):
    """The task of a model.

    Attributes:
      kind: pretraining, squad, classify or embed.
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
        name = plain_name(self.name)
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
    if "pairs" in settings:
        return FolderTask(EMBED)
    if settings:
        return FolderTask(PRETRAINING)
    description = read_description(folder)
    if "task" not in description:
        return None
    if description["task"] == SQUAD:
        return squad_task(description.get(_NEGATIVE))
    kind = CLASSIFY if description["task"] in KINDS else description["task"]
    return FolderTask(kind, str(description.get("task_name", "")))


def squad_task(version_2_with_negative: bool | None) -> FolderTask:
    """SQuAD, of the version that has questions without an answer, or of the first."""
    names = {True: "2.0", False: "1.1"}
    return FolderTask(SQUAD, names.get(version_2_with_negative, ""))


def model_files(
    bert: BertConfig,
    tokenizer: RunTokenizer,
    description: Mapping[str, object] | None,
) -> ModelFiles:
    """The files that checkpoints are used with.

    Args:
      bert: The architecture, for bert_config.json.
      tokenizer: For vocab.txt and tokenizer_config.json, as far as it is known.
      description: The task, for task.json; None for a pre-training, which has none.

    Returns:
      Name -> content; None for a file that must not be there.
    """
    settings = tokenizer.settings
    files: ModelFiles = {TASK_FILE: None}
    files[ORIGINAL_CONFIG] = json.dumps(bert.to_dict(), indent=2).encode()
    if settings:
        text = tokenizer_config(settings, bert.max_position_embeddings)
        files[TOKENIZER_CONFIG] = text.encode()
    if description is not None:
        task = {**description, "do_lower_case": settings.do_lower_case}
        files[TASK_FILE] = json.dumps(task, indent=2, ensure_ascii=False).encode()
    if tokenizer.vocab_file:
        files[VOCABULARY] = vocabulary_text(tokenizer.vocab_file)
    return files


def write_missing_files(folder: str, files: ModelFiles) -> None:
    """Writes the files that checkpoints are used with, as far as there are none.

    Args:
      folder: The folder of the checkpoints.
      files: The result of `model_files`.
    """
    for name, content in files.items():
        path = os.path.join(folder, name)
        if content is not None and not os.path.isfile(path):
            with whole_file(path) as file:
                file.write(content)


def changed_files(folder: str, files: ModelFiles) -> ModelFiles:
    """The model files that a folder has with another content, or must not have.

    Args:
      folder: The folder of the checkpoints.
      files: The result of `model_files`.
    """
    found = {name: _content(os.path.join(folder, name)) for name in files}
    return {name: x for name, x in files.items() if x != found[name]}


def _content(path: str) -> bytes | None:
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def check_model_files(config: RunConfig, files: ModelFiles) -> None:
    """Refuses to train where other weights are described by other files.

    Args:
      config: The settings of a run that resumes nothing in its folder.
      files: The result of `model_files`.

    Raises:
      ValueError: if there are weights with another architecture or vocabulary.
    """
    folder = config.files.output_dir
    if config.files.overwrite_output_dir or not _has_weights(folder):
        return
    for name, title in ((ORIGINAL_CONFIG, "architecture"), (VOCABULARY, "vocabulary")):
        path, content = os.path.join(folder, name), files.get(name)
        found = _content(path)
        if content is None or found is None:
            continue
        if _meaning(name, found) != _meaning(name, content):
            raise ValueError(
                f"{path} has another {title} than this run, and belongs to the "
                "weights in this folder. Pass another --output_dir, or "
                "--overwrite_output_dir to replace it."
            )


def _has_weights(folder: str) -> bool:
    try:
        return bool(find_source(folder).path)
    except (FileNotFoundError, ValueError):
        return False


def _meaning(name: str, content: bytes) -> object:
    """What a file says, however it is written."""
    if name == VOCABULARY:
        return content.split()
    try:
        return BertConfig.from_dict(json.loads(content))
    except ValueError:
        return content


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
