"""The steps of a classification that differ between kinds of tasks."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.tasks.choices import Question, encode_questions, read_questions
from bert_tf.data.tasks.classification import (
    ClassificationTask,
    TextExample,
    encode_examples,
    read_examples,
)
from bert_tf.data.tasks.conll import (
    Sentence,
    encode_sentences,
    read_sentences,
    tag_notes,
)
from bert_tf.data.tasks.row_labels import Kind
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.evaluation.glue import (
    classification_metrics,
    label_metrics,
    regression_metrics,
    write_test_predictions,
    write_test_results,
)
from bert_tf.evaluation.tagging import entity_metrics, split_tags, write_tags
from bert_tf.jobs.run.reporting import classification_details, confusion_of
from bert_tf.modeling.finetuning import (
    ChoiceTask,
    ClassTask,
    FinetuningTask,
    LabelTask,
    RegressionTask,
    TagTask,
)


class Split(NamedTuple):
    """The examples of a split.

    Attributes:
      examples: As they were read.
      labelled: As the model takes them.
      notes: Sentences about them, for the log.
    """

    examples: list[Any]
    labelled: LabelledSequences
    notes: Sequence[str] = ()


class TaskKind(NamedTuple):
    """The steps of a kind of task.

    Attributes:
      read: Reads the examples of a split.
      encode: Encodes them: task, examples, tokenizer, maximum length -> `Split`.
      make_task: Of a model.
      metrics: Task, logits and `Split` -> metrics by name, and the loss.
      write: Folder, name of the test set, task, logits, `Split` -> files written.
      details: For the report: vocabulary, task, logits, `Split`.
    """

    read: Callable[..., list[Any]]
    encode: Callable[[ClassificationTask, list[Any], WordPieceTokenizer, int], Split]
    make_task: type[FinetuningTask]
    metrics: Callable[[ClassificationTask, np.ndarray, Split], dict[str, float]]
    write: Callable[[str, str, ClassificationTask, np.ndarray, Split], list[str]]
    details: Callable[..., dict[str, object]]

    @property
    def of_tokens(self) -> bool:
        """Whether tokens are classified."""
        return self.make_task is TagTask


def _encode_texts(
    task: ClassificationTask,
    examples: list[TextExample],
    tokenizer: WordPieceTokenizer,
    max_seq_length: int,
) -> Split:
    sequences = encode_examples(examples, tokenizer, max_seq_length)
    labels = [example.label for example in examples]
    if any(label is None for label in labels):
        return Split(examples, LabelledSequences(sequences))
    if task.kind is Kind.LABELS:
        values = np.zeros((len(labels), len(task.label_names)), np.float32)
        for row, numbers in zip(values, labels, strict=True):
            row[list(numbers)] = 1.0
        notes = [f"{labels.count(())} of {len(labels)} examples have no label"]
        return Split(examples, LabelledSequences(sequences, {"labels": values}), notes)
    dtype = np.float32 if task.is_regression else np.int32
    values = np.asarray(labels, dtype)
    return Split(examples, LabelledSequences(sequences, {"labels": values}))


def _encode_sentences(
    task: ClassificationTask,
    examples: list[Sentence],
    tokenizer: WordPieceTokenizer,
    max_seq_length: int,
) -> Split:
    found = encode_sentences(examples, tokenizer, max_seq_length)
    labelled = LabelledSequences(found.sequences, tags=found.tags)
    return Split(examples, labelled, [*found.notes, *tag_notes(task, examples)])


def _encode_questions(
    task: ClassificationTask,
    examples: list[Question],
    tokenizer: WordPieceTokenizer,
    max_seq_length: int,
) -> Split:
    del task
    sequences = encode_questions(examples, tokenizer, max_seq_length)
    labels = [example.label for example in examples]
    known = {} if None in labels else {"labels": np.asarray(labels, np.int32)}
    choices = len(examples[0].endings)
    return Split(examples, LabelledSequences(sequences, known, choices=choices))


def _class_metrics(
    task: ClassificationTask, logits: np.ndarray, split: Split
) -> dict[str, float]:
    labels = split.labelled.labels["labels"]
    metrics = classification_metrics(
        task.metrics, logits, labels, positive=task.positive_number
    )
    return metrics | {"loss": _cross_entropy(logits, labels)}


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean in nats, of [n, C] logits."""
    chosen = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    return float(-np.mean(chosen[np.arange(len(labels)), labels]))


def _number_metrics(
    task: ClassificationTask, logits: np.ndarray, split: Split
) -> dict[str, float]:
    del task
    labels = split.labelled.labels["labels"]
    loss = np.mean(np.square(logits[:, 0] - labels, dtype=np.float64))
    return regression_metrics(logits[:, 0], labels) | {"loss": float(loss)}


def _label_metrics(
    task: ClassificationTask, logits: np.ndarray, split: Split
) -> dict[str, float]:
    labels, logits = split.labelled.labels["labels"], logits.astype(np.float64)
    losses = np.logaddexp(0.0, logits) - labels * logits
    metrics = label_metrics(task.label_names, logits, labels)
    return metrics | {"loss": float(np.mean(losses))}


def _of_words(logits: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, C] and tags [n] of all words, chosen from those of all tokens."""
    is_word = split.labelled.tags >= 0
    return logits[is_word], split.labelled.tags[is_word]


def _tag_metrics(
    task: ClassificationTask, logits: np.ndarray, split: Split
) -> dict[str, float]:
    logits, tags = _of_words(logits, split)
    metrics = classification_metrics(("accuracy",), logits, tags)
    metrics["loss"] = _cross_entropy(logits, tags)
    if task.metrics[0] == "accuracy":
        return metrics
    lengths = [len(each.words) for each in split.examples]
    sides = (split_tags(x, lengths, task.label_names) for x in (tags, logits.argmax(1)))
    return entity_metrics(*sides) | metrics


def _choice_metrics(
    task: ClassificationTask, logits: np.ndarray, split: Split
) -> dict[str, float]:
    return _class_metrics(task, logits.reshape(-1, split.labelled.choices), split)


def _write_texts(
    folder: str, name: str, task: ClassificationTask, logits: np.ndarray, split: Split
) -> list[str]:
    texts, names, labels = split.examples, task.label_names, []
    if task.kind is Kind.LABELS:
        rows = map(np.flatnonzero, logits > 0)
        labels = [",".join(names[number] for number in row) for row in rows]
        logits = scipy.special.expit(logits)
    elif not task.is_regression:
        logits = scipy.special.softmax(logits, axis=1)
    pairs = [(each.text_a, each.text_b) for each in texts]
    return _write_tables(folder, name, pairs, names, logits, labels)


def _write_choices(
    folder: str, name: str, task: ClassificationTask, logits: np.ndarray, split: Split
) -> list[str]:
    del task
    choices = split.labelled.choices
    texts = [(f"{x.context} {x.beginning}".strip(), None) for x in split.examples]
    odds = scipy.special.softmax(logits.reshape(-1, choices), axis=1)
    return _write_tables(folder, name, texts, list(map(str, range(choices))), odds)


def _write_tables(
    folder: str,
    name: str,
    texts: list[tuple[str, str | None]],
    names: Sequence[str],
    values: np.ndarray,
    labels: Sequence[str] = (),
) -> list[str]:
    """Writes probabilities, or numbers; and the same with texts."""
    path = os.path.join(folder, f"test_results{name}.tsv")
    write_test_results(path, values)
    columns = ", ".join(names) or "a number"
    lines = [f"Predictions written to {path}; columns: {columns}."]
    path = os.path.join(folder, f"test_predictions{name}.tsv")
    write_test_predictions(path, texts, names, values, labels)
    return [*lines, f"The same with texts and header: {path}."]


def _write_tags(
    folder: str, name: str, task: ClassificationTask, logits: np.ndarray, split: Split
) -> list[str]:
    words = [each.words for each in split.examples]
    numbers = _of_words(logits, split)[0].argmax(axis=1)
    path = os.path.join(folder, f"test_predictions{name}.conll")
    write_tags(path, words, split_tags(numbers, [*map(len, words)], task.label_names))
    return [f"Predictions written to {path}: a word and its tag per line."]


def _text_details(
    vocab_file: str, task: ClassificationTask, logits: np.ndarray, split: Split
) -> dict[str, object]:
    found = (split.labelled.sequences, logits, split.labelled.labels["labels"])
    return classification_details(vocab_file, task.label_names, *found)


def _tag_details(
    vocab_file: str, task: ClassificationTask, logits: np.ndarray, split: Split
) -> dict[str, object]:
    del vocab_file
    logits, tags = _of_words(logits, split)
    return {"confusion": confusion_of(task.label_names, tags, logits.argmax(axis=1))}


def _no_details(*_: object) -> dict[str, object]:
    return {}


_texts = functools.partial(TaskKind, read_examples, _encode_texts, write=_write_texts)
KINDS: Mapping[Kind, TaskKind] = {
    Kind.CLASSES: _texts(ClassTask, _class_metrics, details=_text_details),
    Kind.NUMBERS: _texts(RegressionTask, _number_metrics, details=_text_details),
    Kind.LABELS: _texts(LabelTask, _label_metrics, details=_no_details),
    Kind.TAGS: TaskKind(
        read=read_sentences,
        encode=_encode_sentences,
        make_task=TagTask,
        metrics=_tag_metrics,
        write=_write_tags,
        details=_tag_details,
    ),
    Kind.CHOICES: TaskKind(
        read=read_questions,
        encode=_encode_questions,
        make_task=ChoiceTask,
        metrics=_choice_metrics,
        write=_write_choices,
        details=_no_details,
    ),
}
