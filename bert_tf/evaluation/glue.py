"""Scores of sentence classification: GLUE's metrics, and the file of predictions."""

import csv
import io
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

from bert_tf.files import write_whole


def classification_metrics(
    names: Sequence[str], scores: np.ndarray, labels: np.ndarray, *, positive: int = 1
) -> dict[str, float]:
    """Metrics of the classes with the highest scores.

    Args:
      names: accuracy (in [0, 1]); of two classes also f1 (in [0, 1], of the positive
        class) and matthews_correlation (in [-1, 1]).
      scores: Logits or probabilities, [n, C]; of equal ones the first class is taken.
      labels: Numbers of the true classes, [n] integers in [0, C).
      positive: The number of the positive class.

    Returns:
      The metrics by name. Where one is not defined (no example has, or is predicted to
      have, that class; all have the same class) it is 0, as in scikit-learn.

    Raises:
      ValueError: if there are no examples, shapes differ, or a score is not finite.
    """
    _check_values(scores, labels, "scores", ndim=2)
    predictions = scores.argmax(axis=1)
    compute = {
        "accuracy": lambda: float(np.mean(predictions == labels)),
        "f1": lambda: _f1(predictions == positive, labels == positive),
        # For two classes, numbered 0 and 1, it is Pearson's correlation.
        "matthews_correlation": lambda: _correlation(
            scipy.stats.pearsonr, predictions, labels
        ),
    }
    return {name: compute[name]() for name in names}


def regression_metrics(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Correlations between predicted and true numbers.

    Args:
      predictions: [n].
      labels: [n].

    Returns:
      pearson and spearman (equal numbers share their average rank), in [-1, 1]; 0
      where one side is constant.

    Raises:
      ValueError: if there are no examples, shapes differ, or a number is not finite.
    """
    _check_values(predictions, labels, "predictions", ndim=1)
    return {
        "pearson": _correlation(scipy.stats.pearsonr, predictions, labels),
        "spearman": _correlation(scipy.stats.spearmanr, predictions, labels),
    }


def label_metrics(
    names: Sequence[str], logits: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """F1 of labels of which a text may have any number.

    Args:
      names: Names of the C labels.
      logits: [n, C]; a text is predicted to have the labels above 0.
      labels: [n, C], 1 for those that it has, else 0.

    Returns:
      `micro_f1` of all decisions, `macro_f1`, the mean over the labels, `accuracy`, the
      share of texts with no wrong decision, and `f1_<name>` of each label; F1 is 0
      where no text has, and is predicted to have, the label, as in scikit-learn.
    """
    _check_values(logits[:, 0], labels[:, 0], "logits", ndim=1)
    predicted, true = logits > 0, labels > 0
    by_label = {
        f"f1_{name}": _f1(predicted[:, number], true[:, number])
        for number, name in enumerate(names)
    }
    return {
        "micro_f1": _f1(predicted, true),
        "macro_f1": float(np.mean([*by_label.values()])),
        "accuracy": float(np.mean((predicted == true).all(axis=1))),
        **by_label,
    }


def write_test_results(path: str, probabilities: np.ndarray) -> None:
    """Writes one line of tab-separated numbers per example, atomically.

    Args:
      path: test_results.tsv, as in google-research/bert; without a header.
      probabilities: Those of the classes, [n, C]; or the predicted numbers of a
        regression, [n] or [n, 1].
    """
    table = np.asarray(probabilities, np.float32)
    table = table.reshape(len(table), -1)
    write_whole(path, "".join("\t".join(map(str, row)) + "\n" for row in table))


def write_test_predictions(
    path: str,
    texts: Sequence[tuple[str, str | None]],
    label_names: Sequence[str],
    probabilities: np.ndarray,
    labels: Sequence[str] = (),
) -> None:
    """Writes a table of texts and predictions with a header line, atomically.

    The columns are text_a, text_b if there are pairs, label, and the probability of
    each class under its name; or value instead of them. Texts with a tab, a line end or
    a quotation mark are quoted, as pandas and spreadsheets read them.

    Args:
      path: test_predictions.tsv.
      texts: n texts, or pairs.
      label_names: The classes; empty for a regression.
      probabilities: See `write_test_results`; the numbers are the same in both files.
      labels: The predicted ones; by default the class with the highest probability.
    """
    table = np.asarray(probabilities, np.float32).reshape(len(texts), -1)
    has_pairs = any(second is not None for _, second in texts)
    header = ["text_a", *["text_b"] * has_pairs]
    header += ["label", *label_names] if label_names else ["value"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    if not labels and label_names:
        labels = [label_names[number] for number in table.argmax(axis=1).tolist()]
    for number, ((first, second), row) in enumerate(zip(texts, table, strict=True)):
        pair = [first, *[second or ""] * has_pairs]
        writer.writerow([*pair, *labels[number : number + 1], *map(str, row)])
    write_whole(path, text.getvalue())


def _check_values(values: np.ndarray, labels: np.ndarray, name: str, ndim: int) -> None:
    if not len(labels) or values.ndim != ndim or values.shape[:1] != labels.shape:
        shape = "[n, C]" if ndim == 2 else "[n]"
        raise ValueError(
            f"`{name}` must be {shape} and `labels` [n], with n at least 1. Received: "
            f"shapes {values.shape} and {labels.shape}."
        )
    if not (np.isfinite(values).all() and np.isfinite(labels).all()):
        raise ValueError(
            f"`{name}` and `labels` must be finite numbers. Received: NaN or infinity; "
            "the model has diverged."
        )


def _f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall of the true entries."""
    hits = np.count_nonzero(predictions & labels)
    predicted, true = np.count_nonzero(predictions), np.count_nonzero(labels)
    return float(2.0 * hits / (predicted + true)) if hits else 0.0


def _correlation(
    function: Callable, predictions: np.ndarray, labels: np.ndarray
) -> float:
    """SciPy's correlation, and 0 where it is not defined."""
    first, second = (np.asarray(x, np.float64) for x in (predictions, labels))
    if np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return 0.0
    return float(function(first, second).statistic)
