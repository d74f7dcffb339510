"""Which settings of run_classifier a task has; it would ignore the others."""

from collections.abc import Mapping

from bert_tf.config import checks

# Names of tasks for the user's own files: their extensions.
FILE_FORMATS = ("tsv", "jsonl", "csv", "parquet")
CONLL = "conll"
SWAG = "swag"
XNLI_LANGUAGE = "zh"  # The default.
_KINDS = ("is_regression", "is_multi_label")
_COLUMNS = ("text_a_column", "text_b_column", "label_column")


def plain_name(task_name: str) -> str:
    """A task's name without case, hyphens and underscores, in which users differ."""
    return task_name.lower().replace("-", "").replace("_", "")


def require_task_settings(task_name: str, settings: Mapping[str, object]) -> None:
    """The task must have the settings that are given.

    Args:
      task_name: The task.
      settings: The fields of `ClassifierDataConfig`.

    Raises:
      ValueError: naming a setting that the task would ignore.
    """
    name = task_name.lower()
    refused: tuple[str, ...] = (*_KINDS, *_COLUMNS)
    if name in FILE_FORMATS:
        refused, rule = (), ""
    elif name == CONLL:
        reason = "the first column is the word, the last one its tag"
        rule = f"be left out with task_name={task_name}: {reason}"
    elif name == SWAG:
        refused = _KINDS
        rule = f"be left out with task_name={task_name}: one ending is right"
    else:
        formats = ", ".join(FILE_FORMATS)
        rule = f"come with a task_name of your own files ({formats}), not {task_name}"
    for setting in refused:
        value = settings[setting]
        checks.require(not value, setting, rule, value, f"Leave out --{setting}.")
    first, second = settings["text_a_column"], settings["text_b_column"]
    checks.require_only_with("text_a_column", first, "text_b_column", second)
    checks.require(
        plain_name(task_name) == "xnli" or settings["xnli_language"] == XNLI_LANGUAGE,
        "xnli_language",
        f"be left out with task_name={task_name}",
        settings["xnli_language"],
        "Leave out --xnli_language, or pass --task_name=XNLI.",
    )
