"""Each measure of a model: inputs to rows of a table, or why there is no number."""

import dataclasses
import os
import random
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bert_tf import launch
from bert_tf.config.data import CreateDataConfig
from bert_tf.data.pretraining.instances import InstanceMaker, Masker
from bert_tf.data.tasks.classification import (
    ClassificationTask,
    TextExample,
    encode_examples,
    read_examples,
)
from bert_tf.errors import one_line
from bert_tf.evaluation.glue import regression_metrics
from bert_tf.evaluation.probe import probe_accuracy
from bert_tf.progress import ProgressReport
from bert_tf.stages import stage
from bert_tf.suite.inputs import BLIMP, ROWS, TASKS, Inputs, MinimalPair
from bert_tf.suite.scorer import Progress, Scorer

# Tokens of a row of text, of a text to compare, and of an example of a task.
_MAX_SEQ_LENGTH = 128
# Masks of a text: all models with the same vocabulary predict the same tokens.
_SEED = 12345
_SHARE_OF_UNKNOWN = 0.01
_NO_HEAD = "the model has no masked-LM head"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      name: What is measured.
      metric: The unit of the number.
      value: The number; None if it was not measured.
      baseline: What a model that has learnt nothing gets; None if that is unknown.
      count: What the number is a mean of: pairs, tokens or texts.
      note: Where these are from, or why there is no number.
      parts: The same number for parts of them, by name.
    """

    name: str
    metric: str
    value: float | None = None
    baseline: float | None = None
    count: int = 0
    note: str = ""
    parts: dict[str, float] = dataclasses.field(default_factory=dict)


class NotMeasuredError(Exception):
    """There is no number; the message is the reason, a phrase."""


def measure(scorer: Scorer, inputs: Inputs) -> Iterator[Row]:
    """Measures the rows of the inputs.

    Args:
      scorer: The model.
      inputs: What to measure it on.

    Yields:
      A row for each measure, in the order of the table; without a value where inputs
      are missing or the model cannot do it.
    """
    folder = os.path.join(inputs.data_dir, TASKS)
    probes = [
        (f"probe {os.path.basename(p)}", "accuracy, %", _probing(scorer, p, task))
        for p, task in inputs.tasks.items()
    ]
    measures = {
        "blimp": [("BLiMP", "accuracy, %", lambda: _minimal_pairs(scorer, inputs))],
        "text": [("masked-LM loss", "nats/token", lambda: _text(scorer, inputs))],
        "sts": [
            ("sentence similarity", "Spearman", lambda: _similarity(scorer, inputs))
        ],
        "probes": probes,
    }
    chosen = [each for row in ROWS if row in inputs.rows for each in measures[row]]
    for name, metric, compute in chosen:
        row = Row(name, metric)
        try:
            yield dataclasses.replace(row, **compute())
        except NotMeasuredError as reason:
            yield dataclasses.replace(row, note=f"not measured: {reason}")
    if "probes" in inputs.rows and not probes:
        yield Row("probes", "accuracy, %", note=f"not measured: no task in {folder}")


def _minimal_pairs(scorer: Scorer, inputs: Inputs) -> dict[str, object]:
    """BLiMP: how often the right sentence has the larger pseudo-log-likelihood."""
    if not inputs.pairs:
        folder = shlex.quote(os.fspath(inputs.data_dir))
        raise NotMeasuredError(
            f"{os.path.join(inputs.data_dir, BLIMP)} is missing; `python -m bert_tf "
            f"data download --name=blimp --output_dir={folder}` fetches it"
        )
    if not scorer.has_masked_lm:
        raise NotMeasuredError(_NO_HEAD)
    numbers, pairs = encode_pairs(scorer, inputs.pairs)
    sequences = list(numbers)
    total = sum(len(ids) - 2 for ids in sequences)
    with ProgressReport(total, "masked tokens") as report:
        sums = scorer.pseudo_log_likelihoods(sequences, _advance(report))
    _require_finite(sums)
    scores = pair_scores(sums[pairs[:, 0]], sums[pairs[:, 1]])
    parts: dict[str, list[float]] = defaultdict(list)
    for pair, score in zip(inputs.pairs, scores, strict=True):
        parts[pair.term].append(score)
        if pair.paradigm != pair.term:
            parts[f"{pair.term}/{pair.paradigm}"].append(score)
    return {
        "value": float(scores.mean()),
        "baseline": 50.0,
        "count": len(scores),
        "note": f"pairs of {inputs.blimp}{_unknown_share(scorer, sequences)}",
        "parts": {name: float(np.mean(parts[name])) for name in sorted(parts)},
    }


def pair_scores(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """100 where the right sentence is the likelier one, 50 for ties, else 0: [n]."""
    return np.where(good > bad, 100.0, np.where(good == bad, 50.0, 0.0))


def encode_pairs(
    scorer: Scorer, pairs: Sequence[MinimalPair]
) -> tuple[dict[tuple[int, ...], int], np.ndarray]:
    """Different sentences with their numbers, and the numbers of each pair, [n, 2]."""
    special, known = scorer.tokenizer.special, {}
    found = np.zeros((len(pairs), 2), np.int64)
    for pair, row in zip(pairs, found, strict=True):
        for column, text in enumerate((pair.good, pair.bad)):
            [ids] = scorer.tokenizer.encode([text])
            if not ids:
                raise ValueError(
                    f"{pair.location}: a sentence must have words. Received: {text!r}. "
                    "Correct or remove the line."
                )
            if len(ids) + 2 > scorer.max_seq_length:
                raise NotMeasuredError(
                    f"{pair.location} has {len(ids) + 2} tokens, more than the model's "
                    f"{scorer.max_seq_length} positions"
                )
            sequence = (special.cls, *ids, special.sep)
            row[column] = known.setdefault(sequence, len(known))
    return known, found


def _text(scorer: Scorer, inputs: Inputs) -> dict[str, object]:
    """The masked-LM loss of a text, masked as records are, without sentence pairs."""
    if not inputs.text:
        raise NotMeasuredError("pass --text")
    if not scorer.has_masked_lm:
        raise NotMeasuredError(_NO_HEAD)
    length = min(_MAX_SEQ_LENGTH, scorer.max_seq_length)
    if length < 8:
        raise NotMeasuredError(f"the model has only {length} positions")
    config = CreateDataConfig(
        input=inputs.text,
        output_dir=os.devnull,  # Nothing is written.
        vocab_file=scorer.vocab_file,
        max_seq_length=length,
        short_seq_prob=0.0,
        do_nsp=False,
    )
    tokenizer = scorer.tokenizer
    masker = Masker(
        config,
        tokenizer.special,
        len(tokenizer.inverse_vocab),
        tokenizer.continuations,
    )
    maker = InstanceMaker(config, tokenizer.special, masker, random.Random(_SEED))
    documents = [tokenizer.encode(document) for document in inputs.documents]
    instances = maker.make(documents)
    if not instances:
        raise NotMeasuredError(f"{inputs.text} has no token")
    total = sum(len(each.masked_lm_ids) for each in instances)
    with ProgressReport(total, "masked tokens") as report:
        loss, count = scorer.masked_lm_loss(instances, _advance(report))
    _require_finite(np.array(loss))
    sentences = [sentence for document in documents for sentence in document]
    return {
        "value": loss,
        "baseline": float(np.log(len(tokenizer.inverse_vocab))),
        "count": count,
        "note": f"masked tokens of {inputs.text}{_unknown_share(scorer, sentences)}",
    }


def _similarity(scorer: Scorer, inputs: Inputs) -> dict[str, object]:
    """How the cosine of two texts' vectors orders the pairs, against people."""
    if not inputs.sts:
        raise NotMeasuredError("pass --sts")
    texts = [
        TextExample(text, None, None, "")
        for pair in inputs.rated
        for text in (pair.text_a, pair.text_b)
    ]
    vectors, remark = _vectors(scorer, texts)
    vectors = vectors.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    labels = np.array([pair.label for pair in inputs.rated])
    found = regression_metrics((vectors[::2] * vectors[1::2]).sum(axis=1), labels)
    return {
        "value": found["spearman"],
        "baseline": 0.0,
        "count": len(labels),
        "note": f"pairs of {inputs.sts}{remark}",
    }


def _probing(
    scorer: Scorer, folder: str, task: ClassificationTask | None
) -> Callable[[], dict[str, object]]:
    """A function that measures a task, whose examples are read only then."""

    def compute() -> dict[str, object]:
        if task is None:
            raise NotMeasuredError(f"{folder} has no train file")
        try:  # A row: an error would end the command, without the rows before.
            splits = [read_examples(task, folder, split) for split in ("train", "dev")]
        except (OSError, ValueError) as error:
            raise NotMeasuredError(one_line(error)) from None
        labels = [np.array([e.label for e in examples]) for examples in splits]
        examples = [example for part in splits for example in part]
        vectors, remark = _vectors(scorer, examples)
        train, test = np.split(vectors, [len(splits[0])])
        classes = len(task.label_names)
        with stage(f"Fitting a probe to {len(train):,} texts", launch.report):
            accuracy = probe_accuracy(train, labels[0], test, labels[1], classes)
        majority = np.bincount(labels[0], minlength=classes).argmax()
        return {
            "value": 100.0 * accuracy,
            "baseline": 100.0 * float(np.mean(labels[1] == majority)),
            "count": len(labels[1]),
            "note": f"texts of {folder}, after {len(labels[0]):,} to learn from"
            f"{remark}",
        }

    return compute


def _vectors(scorer: Scorer, examples: Sequence[TextExample]) -> tuple[np.ndarray, str]:
    """Mean vectors, [n, H] float32; and a remark about texts that are cut, if any."""
    length = min(_MAX_SEQ_LENGTH, scorer.max_seq_length)
    if length < 3:
        raise NotMeasuredError(f"the model has only {length} positions")
    sequences = encode_examples(examples, scorer.tokenizer, length)
    with ProgressReport(len(examples), "texts") as report:
        vectors = scorer.mean_vectors(sequences, _advance(report))
    _require_finite(vectors)
    share = float(np.mean(sequences.lengths == length))
    remark = f"; {share:.1%} of the texts fill {length} tokens, and are cut there"
    return vectors, remark * (share > 0)


def _advance(report: ProgressReport) -> Progress:
    return lambda count: report.add(count, count)


def _require_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise NotMeasuredError("the model computes NaN or infinity")


def _unknown_share(scorer: Scorer, sequences: Sequence[Sequence[int]]) -> str:
    """A remark about tokens that the vocabulary lacks, where they are many."""
    ids = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    share = float(np.mean(ids == scorer.tokenizer.special.unk))
    return f"; {share:.0%} of the tokens are [UNK]" * (share >= _SHARE_OF_UNKNOWN)
