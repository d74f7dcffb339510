"""Finds mistakes in flags, folders and names before TensorFlow is loaded."""

import os

from bert_tf.config.finetuning import ClassifierConfig, FinetuningConfig, SquadConfig
from bert_tf.config.paths import require_file
from bert_tf.config.precision_file import find_precision, read_lists
from bert_tf.config.run import RunConfig
from bert_tf.config.sentences import SentencesConfig
from bert_tf.config.task_settings import CONLL, FILE_FORMATS, SWAG
from bert_tf.data.tasks.choices import swag_task
from bert_tf.data.tasks.conll import OUTSIDE, conll_task
from bert_tf.data.tasks.custom_task import own_task
from bert_tf.data.tasks.glue_tasks import find_task
from bert_tf.data.tasks.pairs import PairColumns, find_columns
from bert_tf.data.tasks.row_labels import ColumnNames
from bert_tf.data.text.tokenizer_settings import TASK_FILE
from bert_tf.jobs.run.start import find_finetuning_start, find_pretraining_start
from bert_tf.training.checkpoints import has_unpublished


def check(config: RunConfig) -> None:
    """Checks the data and the start of a run of one process.

    Raises:
      OSError, ValueError, RunError: as when the run does so itself.
    """
    precision, lists = config.runtime.chosen_precision, config.runtime.bf16_config_path
    _, path, setting = find_precision(precision, lists)
    if path:
        read_lists(path, setting)
    if isinstance(config, FinetuningConfig):
        check_examples(config)
    if has_unpublished(config.files.output_dir):
        return  # A training publishes them first.
    if isinstance(config, FinetuningConfig):
        find_finetuning_start(config)
    else:
        find_pretraining_start(config)


def check_examples(config: FinetuningConfig) -> None:
    """Checks the task, its files and their columns, but not what the files hold.

    Raises:
      OSError, ValueError: as when the files are read.
    """
    training = config.training
    if isinstance(config, SquadConfig):
        if training.do_train:
            require_file("train_file", config.squad.train_path)
        if training.do_eval or training.do_predict:
            require_file("predict_file", config.squad.predict_path)
    elif isinstance(config, ClassifierConfig):
        _check_task(config)
    elif isinstance(config, SentencesConfig):
        pairs = config.pairs
        paths = [pairs.train_file] * training.do_train
        paths += [pairs.dev_file] * training.do_eval
        for path in paths:
            if not path.lower().endswith(".parquet"):  # Its reader loads slowly.
                find_columns(path, PairColumns(*pairs.columns))


def _check_task(config: ClassifierConfig) -> None:
    given, splits = config.task, config.training.splits
    name, folder = given.task_name.lower(), given.data_dir
    columns = ColumnNames(given.text_a_column, given.text_b_column, given.label_column)
    if name == CONLL:
        conll_task(folder, splits, [OUTSIDE])
    elif name == SWAG:
        swag_task(folder, splits, columns)
    elif name not in FILE_FORMATS:
        task = find_task(given.task_name, given.xnli_language)
        for split in task.files:
            if split.partition("_")[0] in splits:
                task.find_file(folder, split)
    elif name != "parquet" and not _has_task_file(config):
        kinds = {"is_regression": given.is_regression}
        kinds |= {"is_multi_label": given.is_multi_label, "label_names": ("0", "1")}
        task = own_task(name, folder, columns, splits=splits, **kinds)
        for split in splits:
            task.find_file(folder, split)


def _has_task_file(config: ClassifierConfig) -> bool:
    """Whether a model may know the columns of its training."""
    path = config.files.init_checkpoint
    folders = (config.files.output_dir, path, os.path.dirname(path))
    files = (os.path.join(folder, TASK_FILE) for folder in folders)
    return path.startswith("hf://") or any(map(os.path.exists, files))
