"""Predictors of tiny, untrained models: the form of results, and what is logged."""

import json
import logging

import pytest
from conftest import TINY

from bert_tf import Classifier, Embedder, FeatureExtractor
from bert_tf.config import BertConfig
from bert_tf.interop.pretrained import save_pretrained
from bert_tf.modeling.finetuning import build_classifier_model

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the river is long and cold a bridge was built".split()
NAMES = ["music", "sport", "water"]
TASK = {"task": "classify", "label_names": NAMES, "max_seq_length": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    vocabulary = SPECIAL + WORDS
    vocab_file = path / "words.txt"
    vocab_file.write_text("\n".join(vocabulary) + "\n")
    config = BertConfig(**TINY | {"vocab_size": len(vocabulary)})
    model = build_classifier_model(config, len(NAMES))
    save_pretrained(
        model, path / "model", vocab_file=str(vocab_file), label_names=NAMES
    )
    (path / "model" / "task.json").write_text(json.dumps(TASK))
    return path / "model"


def test_a_model_of_several_labels_has_no_single_label(folder):
    task = TASK | {"problem_type": "multi_label_classification"}
    (folder / "task.json").write_text(json.dumps(task))
    [result] = Classifier(str(folder))(["the river"])
    (folder / "task.json").write_text(json.dumps(TASK))
    assert list(result) == ["labels", "probabilities"]
    [result] = Classifier(str(folder))(["the river"])
    assert list(result) == ["label", "probabilities"]


def test_no_texts_have_a_matrix_of_no_vectors(folder):
    vectors = Embedder(str(folder))([])
    assert vectors.shape == (0, TINY["hidden_size"])
    assert vectors.dtype == "float32"


def test_no_input_has_no_result(folder):
    assert list(FeatureExtractor(str(folder), layers=[-1], max_seq_length=16)([])) == []
    assert Classifier(str(folder))([]) == []


@pytest.fixture
def described(folder):
    """Loads the classifier with more in its task.json."""

    def load(**more):
        (folder / "task.json").write_text(json.dumps(TASK | more))
        return Classifier(str(folder))

    yield load
    (folder / "task.json").write_text(json.dumps(TASK))


SINGLE = {"text_a": "body", "text_b": "", "label": "kind"}


@pytest.mark.parametrize(
    "known",
    [{"task_name": "csv", "columns": SINGLE}, {"task_name": "SST-2"}],
    ids=["own", "glue"],
)
def test_a_pair_is_refused_by_a_model_of_single_texts(described, known):
    classify = described(**known)
    assert len(classify(["the river", ("cold", "")])) == 2
    with pytest.raises(ValueError, match="Input 1: the model was trained on single"):
        classify(["the river", ("the river", "is cold")])


@pytest.mark.parametrize(
    "known",
    [{"task_name": "csv", "columns": SINGLE | {"text_b": "x"}}, {"task_name": "MRPC"}],
    ids=["own", "glue"],
)
def test_a_model_of_pairs_warns_once_of_single_texts(described, known, caplog):
    classify = described(**known)
    classify([("the river", "is cold")])
    assert "pairs" not in caplog.text
    classify(["the river", "cold"])
    classify(["cold"])
    assert caplog.text.count("was trained on pairs of texts") == 1


def test_a_model_whose_inputs_are_unknown_takes_both(described, caplog):
    for known in ({}, {"task_name": "csv"}):
        assert len(described(**known)(["the river", ("the river", "is cold")])) == 2
    assert "pairs of texts" not in caplog.text


@pytest.mark.parametrize("kind", [Classifier, FeatureExtractor])
def test_several_models_in_a_process_do_not_warn_of_retracing(folder, caplog, kind):
    caplog.set_level(logging.WARNING)
    settings = (
        {"layers": [-1], "max_seq_length": 16} if kind is FeatureExtractor else {}
    )
    logging.getLogger("tensorflow").addHandler(caplog.handler)
    try:
        for _ in range(7):
            list(kind(str(folder), **settings)(["the river"]))
    finally:
        logging.getLogger("tensorflow").removeHandler(caplog.handler)
    assert "retracing" not in caplog.text
