import csv

import numpy as np
import pytest
import sklearn.metrics

from bert_tf.evaluation.glue import (
    classification_metrics,
    label_metrics,
    regression_metrics,
    write_test_predictions,
    write_test_results,
)

# 8 examples: 3 true positives, 1 false one, 2 false negatives, 2 true ones.
PREDICTED = [1, 1, 1, 1, 0, 0, 0, 0]
TRUE = [1, 1, 1, 0, 1, 1, 0, 0]


def scores_for(classes, num_classes=2):
    """Logits whose largest is that of the class."""
    return np.eye(num_classes, dtype=np.float32)[classes] * 3.0 - 1.0


def metric(name, predicted, true):
    results = classification_metrics([name], scores_for(predicted), np.array(true))
    return results[name]


def test_accuracy_is_the_share_of_right_classes():
    assert metric("accuracy", PREDICTED, TRUE) == 5 / 8


def test_accuracy_of_three_classes():
    scores = np.array([[0.1, 0.2, 0.3], [5.0, 1.0, 2.0], [-3.0, -1.0, -2.0]])
    results = classification_metrics(["accuracy"], scores, np.array([2, 1, 1]))
    assert results == {"accuracy": 2 / 3}


def test_f1_is_that_of_the_positive_class_whatever_its_number():
    swapped = [1 - label for label in PREDICTED], [1 - label for label in TRUE]
    scores, labels = scores_for(swapped[0]), np.array(swapped[1])
    found = classification_metrics(["f1"], scores, labels, positive=0)
    assert found["f1"] == pytest.approx(2 / 3)


def test_f1_is_that_of_class_one():
    # Precision 3/4, recall 3/5.
    assert metric("f1", PREDICTED, TRUE) == pytest.approx(2 / 3)


def test_matthews_correlation_of_a_worked_example():
    # (3 * 2 - 1 * 2) / sqrt(4 * 5 * 3 * 4)
    expected = 4 / np.sqrt(240)
    assert metric("matthews_correlation", PREDICTED, TRUE) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["f1", "matthews_correlation"])
@pytest.mark.parametrize(
    ("predicted", "true"),
    [([0, 0, 0], [0, 1, 1]), ([0, 0], [0, 0]), ([0, 1, 0], [0, 0, 0])],
)
def test_metric_that_is_not_defined_is_zero(name, predicted, true):
    assert metric(name, predicted, true) == 0.0


def test_matthews_correlation_is_zero_if_all_are_predicted_to_be_one():
    assert metric("matthews_correlation", [1, 1, 1], [0, 1, 1]) == 0.0


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_metrics_of_two_classes_are_those_of_sklearn(share):
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(200, 2)).astype(np.float32)
    labels = (rng.random(200) < share).astype(np.int64)
    predicted = scores[:, 1] > scores[:, 0]
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "f1": sklearn.metrics.f1_score(labels, predicted),
        "matthews_correlation": sklearn.metrics.matthews_corrcoef(labels, predicted),
    }
    results = classification_metrics([*expected], scores, labels)
    # Float64 sums over 200 numbers, in another order.
    assert results == pytest.approx(expected, abs=1e-12)


def test_only_the_asked_metrics_are_given():
    results = classification_metrics(["f1"], scores_for([1]), np.array([1]))
    assert results == {"f1": 1.0}


def test_other_numbers_of_scores_and_labels_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(2, 2\) and \(3,\)"):
        metric("accuracy", [0, 1], [0, 1, 1])


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="n at least 1"):
        classification_metrics(["accuracy"], np.zeros([0, 2]), np.zeros([0], np.int64))


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`scores` .* finite"):
        classification_metrics(["accuracy"], np.array([[0, np.nan]]), np.array([0]))


def test_correlations_of_a_worked_example():
    predictions = np.array([0.0, 1.0, 2.0, 3.0, 4.0], np.float32)
    labels = np.array([1.0, 2.0, 2.0, 5.0, 5.0])
    # Deviations -2 -1 0 1 2 and -2 -1 -1 2 2.
    pearson = (4 + 1 + 0 + 2 + 4) / np.sqrt(10 * 14)
    # Ranks 1 2 3 4 5 and 1 2.5 2.5 4.5 4.5; deviations -2 -.5 -.5 1.5 1.5.
    spearman = (4 + 0.5 + 0 + 1.5 + 3) / np.sqrt(10 * 9)
    results = regression_metrics(predictions, labels)
    assert results == pytest.approx({"pearson": pearson, "spearman": spearman})


def test_spearman_sees_the_order_only():
    predictions = np.array([0.1, 0.2, 5.0, 900.0])
    results = regression_metrics(predictions, np.array([1.0, 2.0, 3.0, 4.0]))
    assert results["spearman"] == pytest.approx(1.0)
    assert results["pearson"] < 0.9


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([2.5, 2.5, 2.5], [1.0, 2.0, 3.0]), ([1.0, 2.0], [4.0, 4.0]), ([1.0], [2.0])],
)
def test_correlation_with_a_constant_is_zero(predictions, labels):
    results = regression_metrics(np.array(predictions, np.float32), np.array(labels))
    assert results == {"pearson": 0.0, "spearman": 0.0}


def test_predictions_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`predictions` .* finite"):
        regression_metrics(np.array([1.0, np.inf]), np.array([1.0, 2.0]))


def test_predictions_with_a_second_axis_are_refused():
    with pytest.raises(ValueError, match=r"\[n\].*shapes \(2, 1\) and \(2,\)"):
        regression_metrics(np.array([[1.0], [2.0]]), np.array([1.0, 2.0]))


def test_probabilities_are_written_without_a_header(tmp_path):
    path = tmp_path / "test_results.tsv"
    write_test_results(str(path), np.array([[0.25, 0.75], [1.0, 1e-8]], np.float32))
    assert path.read_bytes() == b"0.25\t0.75\n1.0\t1e-08\n"


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_a_number_is_written_for_each_example_of_a_regression(tmp_path, shape):
    path = tmp_path / "test_results.tsv"
    write_test_results(str(path), np.array([0.1, 4.5], np.float32).reshape(shape))
    assert path.read_text() == "0.1\n4.5\n"


def test_results_replace_earlier_ones_and_leave_nothing_else(tmp_path):
    path = tmp_path / "test_results.tsv"
    path.write_text("earlier\n")
    write_test_results(str(path), np.array([[0.5, 0.5]]))
    assert path.read_text() == "0.5\t0.5\n"
    assert list(tmp_path.iterdir()) == [path]


def test_predictions_of_pairs_are_read_by_other_programs(tmp_path):
    """Texts with tabs, line ends and quotation marks, by Python's reader."""
    texts = [('a\t"b"', "c\nd"), ("", None)]
    path = tmp_path / "x.tsv"
    write_test_predictions(path, texts, ["no", "yes"], [[0.25, 0.75], [0.5, 0.5]])
    with open(path, newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows == [
        ["text_a", "text_b", "label", "no", "yes"],
        ['a\t"b"', "c\nd", "yes", "0.25", "0.75"],
        ["", "", "no", "0.5", "0.5"],
    ]


def test_predictions_of_numbers_have_one_column(tmp_path):
    path = tmp_path / "x.tsv"
    write_test_predictions(path, [("a", None)], [], np.asarray([[1.5]]))
    assert path.read_text() == "text_a\tvalue\na\t1.5\n"


def test_f1_of_several_labels_is_that_of_scikit_learn():
    rng = np.random.default_rng(5)
    labels = (rng.random((40, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.float32)
    logits = np.where(rng.random((40, 4)) < 0.7, labels, 1 - labels) * 4 - 2.0
    logits[:, 3] = -1.0  # A label that no text has, or is predicted to have.
    names = ["a", "b", "c", "d"]
    ours = label_metrics(names, logits, labels)
    score, given = sklearn.metrics.f1_score, (labels, logits > 0)
    for average in ("micro", "macro"):
        expected = score(*given, average=average, zero_division=0)
        assert ours[f"{average}_f1"] == pytest.approx(expected)
    each = score(*given, average=None, zero_division=0)
    assert [ours[f"f1_{name}"] for name in names] == pytest.approx(each.tolist())
    assert ours["accuracy"] == sklearn.metrics.accuracy_score(*given)
