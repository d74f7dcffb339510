"""What predictors are given: texts, and what is none."""

import dataclasses
import os

import numpy as np
import pytest

import bert_tf

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog"]


class Table(list):
    """A list of column names, as a table of pandas is when it is iterated over."""

    columns = ("text", "label")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_config):
    """A classifier, and the same for single texts alone."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    for name, segments in (("pairs", 2), ("single", 1)):
        config = dataclasses.replace(
            tiny_config, vocab_size=len(WORDS), type_vocab_size=segments
        )
        bert_tf.save_pretrained(
            bert_tf.build_classifier_model(config, 2),
            folder / name,
            vocab_file=str(folder / "vocab.txt"),
        )
    return folder


@pytest.mark.parametrize("wrong", [{"cat": 1}, {"cat", "dog"}, Table(["text"]), None])
def test_what_is_no_list_of_texts_is_refused(folder, wrong):
    tokenizer = bert_tf.load_tokenizer(folder / "pairs")
    predictors = [
        tokenizer,
        bert_tf.Classifier(folder / "pairs"),
        bert_tf.Embedder(folder / "pairs"),
        lambda texts: tokenizer(["cat"], texts or {}),
    ]
    for predictor in predictors:
        with pytest.raises(ValueError, match="Pass a list, or one column of a table"):
            predictor(wrong)


def test_no_texts_have_no_vectors(folder):
    vectors = bert_tf.Embedder(folder / "pairs")([])
    assert (vectors.shape, vectors.dtype) == ((0, 8), np.float32)


@pytest.mark.parametrize("kind", ["Classifier", "Embedder", "FeatureExtractor"])
def test_a_pair_needs_a_model_with_two_segments(folder, kind):
    settings = (
        {"layers": [-1], "max_seq_length": 16} if kind == "FeatureExtractor" else {}
    )
    predictor = getattr(bert_tf, kind)(folder / "single", **settings)
    assert len(list(predictor(["cat"]))) == 1
    with pytest.raises(ValueError, match="type_vocab_size=1, .* segment_ids of 1"):
        list(predictor([("cat", "dog")]))


def test_a_fork_of_a_process_that_has_a_model_is_refused(folder):
    """TensorFlow itself waits there for threads that the fork does not have."""
    model, run = folder / "pairs", {"input_files_dir": folder, "do_train": True}
    classify, embed = bert_tf.Classifier(model), bert_tf.Embedder(model)
    extract = bert_tf.FeatureExtractor(model, layers=[-1], max_seq_length=9)
    calls = [
        lambda: classify(["cat"]),
        lambda: embed(["cat"]),
        lambda: list(extract(["cat"])),
        lambda: bert_tf.Classifier(model),
        lambda: bert_tf.pretrain(**run, preset="tiny", output_dir=folder / "run"),
    ]
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        for call in calls:
            try:
                call()
            except Exception as error:
                os.write(writer, f"{type(error).__name__}: {error}\n".encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    assert len(lines) == len(calls)
    for line in lines:
        assert line.startswith("RunError: TensorFlow must not be used on both sides")
        assert f"process {child}, a fork of process {os.getpid()}" in line
    assert not (folder / "run").exists()
