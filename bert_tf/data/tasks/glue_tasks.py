"""The tasks of GLUE, and XNLI: their classes, files, columns and metrics.

Source: the files as gluebenchmark.com distributes them; google-research/bert,
`run_classifier.py`, for the order of texts and classes, and for XNLI.
"""

import dataclasses
import functools

from bert_tf.config.task_settings import (
    CONLL,
    FILE_FORMATS,
    SWAG,
    XNLI_LANGUAGE,
    plain_name,
)
from bert_tf.data.tasks.classification import ClassificationTask, RowFilter, SplitFile
from bert_tf.data.tasks.row_labels import ColumnNames, Kind
from bert_tf.errors import did_you_mean

XNLI_LANGUAGES = tuple("ar bg de el en es fr hi ru sw th tr ur vi zh".split())

_BINARY = ("0", "1")
# Names that models have for the classes that the files number.
_SIMILAR = {"not_equivalent": "0", "equivalent": "1"}
_DUPLICATE = {"not_duplicate": "0", "duplicate": "1"}
_ACCEPTABLE = {"unacceptable": "0", "acceptable": "1"}
_POSITIVE = {"negative": "0", "positive": "1"}
_FOLLOWING = {"not_entailment": "0", "entailment": "1"}
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("contradiction", "entailment", "neutral")
_PAIR = ColumnNames("sentence1", "sentence2", "label")
# The order of CoLA's columns; the third one is the mark that its source gives.
_COLA_HEADER = ("source", "label", "mark", "sentence")


# The published files are not quoted.
_file = functools.partial(SplitFile, keeps_quotes=True)


def _files(
    columns: ColumnNames, dev: str = "dev.tsv", test: str = "test.tsv"
) -> dict[str, tuple[SplitFile, ...]]:
    """Files with a header line; the test file has no labels."""
    return {
        "train": (_file("train.tsv", columns),),
        "dev": (_file(dev, columns),),
        "test": (_file(test, columns.without_label()),),
    }


def _cola() -> ClassificationTask:
    columns = ColumnNames("sentence", label="label")
    files = {
        name: (_file(f"{name}.tsv", columns, header=_COLA_HEADER),)
        for name in ("train", "dev")
    }
    files["test"] = (_file("test.tsv", columns.without_label()),)
    metrics = ("matthews_correlation", "accuracy")
    return ClassificationTask(
        "CoLA", _BINARY, files, metrics, label_aliases=_ACCEPTABLE
    )


def _mnli() -> ClassificationTask:
    columns = ColumnNames("sentence1", "sentence2", "gold_label")
    files = _files(columns, "dev_matched.tsv", "test_matched.tsv")
    for name in ("dev", "test"):
        [matched] = files[name]
        mismatched = dataclasses.replace(matched, name=f"{name}_mismatched.tsv")
        files[f"{name}_mismatched"] = (mismatched,)
    return ClassificationTask("MNLI", _INFERENCE, files)


def _mrpc() -> ClassificationTask:
    """GLUE's three files, else the original corpus and GLUE's list of dev pairs."""
    columns = ColumnNames("#1 String", "#2 String", "Quality")
    dev = RowFilter(("#1 ID", "#2 ID"), list_file="mrpc_dev_ids.tsv")
    train = dataclasses.replace(dev, excludes=True)
    source = "msr_paraphrase_train.txt"
    raw = {
        "train": _file(source, columns, row_filter=train),
        "dev": _file(source, columns, row_filter=dev),
        # It has labels, but GLUE's test set has none.
        "test": _file("msr_paraphrase_test.txt", columns.without_label()),
    }
    files = {name: (*glue, raw[name]) for name, glue in _files(columns).items()}
    metrics = ("accuracy", "f1")
    return ClassificationTask("MRPC", _BINARY, files, metrics, label_aliases=_SIMILAR)


def _qqp() -> ClassificationTask:
    files = _files(ColumnNames("question1", "question2", "is_duplicate"))
    # Some questions of the official files contain line ends, which break their rows.
    for name in ("train", "dev"):
        [file] = files[name]
        files[name] = (dataclasses.replace(file, skips_broken_rows=True),)
    metrics = ("accuracy", "f1")
    return ClassificationTask("QQP", _BINARY, files, metrics, label_aliases=_DUPLICATE)


def _sts_b() -> ClassificationTask:
    return ClassificationTask(
        "STS-B",
        (),
        _files(ColumnNames("sentence1", "sentence2", "score")),
        ("pearson", "spearman"),
        label_range=(0.0, 5.0),
        kind=Kind.NUMBERS,
    )


def _xnli(language: str) -> ClassificationTask:
    """MultiNLI's machine-translated training set, and XNLI's own dev and test."""
    if language not in XNLI_LANGUAGES:
        raise ValueError(
            f"`xnli_language` must be one of {', '.join(XNLI_LANGUAGES)}. Received: "
            f"xnli_language={language}."
        )
    train = _file(
        f"multinli/multinli.train.{language}.tsv",
        ColumnNames("premise", "hypo", "label"),
    )
    columns = ColumnNames("sentence1", "sentence2", "gold_label")
    own = RowFilter(("language",), values={(language,)})
    files = {
        name: (_file(f"xnli.{name}.tsv", columns, row_filter=own),)
        for name in ("dev", "test")
    }
    return ClassificationTask(
        "XNLI",
        _INFERENCE,
        {"train": (train,), **files},
        folder="XNLI",
        label_aliases={"contradictory": "contradiction"},
    )


_UNPLACED = (
    _cola(),
    _mnli(),
    _mrpc(),
    ClassificationTask(
        "QNLI", _ENTAILMENT, _files(ColumnNames("question", "sentence", "label"))
    ),
    _qqp(),
    ClassificationTask("RTE", _ENTAILMENT, _files(_PAIR)),
    ClassificationTask(
        "SST-2",
        _BINARY,
        _files(ColumnNames("sentence", label="label")),
        label_aliases=_POSITIVE,
    ),
    _sts_b(),
    ClassificationTask("WNLI", _BINARY, _files(_PAIR), label_aliases=_FOLLOWING),
)
_GLUE = tuple(
    dataclasses.replace(task, folder=task.name, download_name=task.name.lower())
    for task in _UNPLACED
)
TASK_NAMES = (*(task.name for task in _GLUE), "XNLI")


def find_task(name: str, language: str = XNLI_LANGUAGE) -> ClassificationTask:
    """Finds a published task.

    Args:
      name: One of `TASK_NAMES`; case and hyphens do not matter.
      language: For XNLI only, one of `XNLI_LANGUAGES`.

    Returns:
      The task, for `bert_tf.data.tasks.classification.read_examples`.

    Raises:
      ValueError: if there is no such task or language.
    """
    for task in (*_GLUE, _xnli(language)):
        if plain_name(task.name) == plain_name(name):
            return task
    guess = did_you_mean(name, (*TASK_NAMES, *FILE_FORMATS, CONLL, SWAG))
    raise ValueError(
        f"`task_name` must be one of {', '.join(TASK_NAMES)}, or tsv, jsonl, csv or "
        "parquet for your own files, conll for tagged words, swag for multiple choice. "
        f"Received: task_name={name}. {guess}".rstrip()
    )
