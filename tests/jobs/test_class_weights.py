"""Weights of classes in the loss of a training."""

import types

import numpy as np
import pytest

from bert_tf.config.finetuning import ClassifierDataConfig
from bert_tf.jobs.classifier import class_weights

TASK = types.SimpleNamespace(label_names=("no", "yes", "a:b"))


def weights_of(*given, task=TASK, labels=(0, 0, 0, 1)):
    config = ClassifierDataConfig(task_name="tsv", data_dir="x", class_weights=given)
    return class_weights(config, task, np.array(labels))


def test_balanced_weights_are_those_of_the_formula():
    # 4 examples, 3 classes: 4 / (3 x 3) and 4 / (3 x 1); the last has no example.
    expected = {"no": 4 / 9, "yes": 4 / 3, "a:b": 1.0}
    assert weights_of("balanced") == pytest.approx(expected)


def test_a_class_that_is_not_listed_has_weight_1():
    assert weights_of("yes:2.5") == {"no": 1.0, "yes": 2.5, "a:b": 1.0}


def test_a_name_may_have_a_colon():
    assert weights_of("a:b:3") == {"no": 1.0, "yes": 1.0, "a:b": 3.0}


def test_without_weights_there_are_none():
    assert weights_of() == {}


def test_an_unknown_class_is_refused_with_those_of_the_task():
    with pytest.raises(
        ValueError, match=r"'no', 'yes'.*Received: class_weights='nein'"
    ):
        weights_of("nein:2")


def test_weights_of_a_regression_are_refused():
    with pytest.raises(ValueError, match="it has none"):
        weights_of("balanced", task=types.SimpleNamespace(label_names=()))


@pytest.mark.parametrize(
    "given",
    [("yes",), ("yes:x",), ("yes:0",), ("yes:-1",), ("yes:nan",), ("yes:inf",)]
    + [(":2",), ("yes:1", "yes:2"), ("balanced", "yes:2"), ("",)],
)
def test_what_is_no_list_of_weights_is_refused(given):
    with pytest.raises(ValueError, match="`class_weights` must list each class once"):
        weights_of(*given)
