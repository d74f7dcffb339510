"""Scores of texts, against one NumPy model that computes a sequence at a time."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY, WIDE
from interop.tiny_bert import (
    WORDS,
    encoder_shapes,
    pretraining_shapes,
    random_tensors,
    write_tf1,
)
from oracles.numpy_bert import NumpyBert, softmax

from bert_tf.config import BertConfig
from bert_tf.data.pretraining.instances import TrainingInstance
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.suite import scorer as module
from bert_tf.suite.scorer import Scorer

CLS, SEP, MASK = (WORDS.index(word) for word in ("[CLS]", "[SEP]", "[MASK]"))
SENTENCES = [[CLS, *ids, SEP] for ids in ([7, 8, 9], [9], [5, 29, 7, 8], [9, 8, 7])]


@pytest.fixture(scope="module", params=[TINY, WIDE], ids=["reference", "fused"])
def models(request, tmp_path_factory):
    """A model of random numbers, and the same in NumPy."""
    config = BertConfig(**request.param)
    tensors = random_tensors(pretraining_shapes(config))
    path = write_tf1(tmp_path_factory.mktemp("model"), tensors, config)
    return Scorer(path), NumpyBert(tensors, dataclasses.asdict(config))


def loss_at(oracle, ids, position, label):
    logits = oracle.masked_lm_logits(oracle.encode(ids), [position])[0]
    return -np.log(softmax(logits)[label])


@pytest.mark.parametrize("tokens_at_once", [4096, 6])
def test_each_token_is_masked_alone_in_batches_of_any_size(
    models, monkeypatch, tokens_at_once
):
    monkeypatch.setattr(module, "_TOKENS_AT_ONCE", tokens_at_once)
    scorer, oracle = models
    expected = [
        -sum(
            loss_at(oracle, [*ids[:p], MASK, *ids[p + 1 :]], p, ids[p])
            for p in range(1, len(ids) - 1)
        )
        for ids in SENTENCES
    ]
    done = []
    found = scorer.pseudo_log_likelihoods(SENTENCES, done.append)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert sum(done) == sum(len(ids) - 2 for ids in SENTENCES)


def test_the_loss_of_a_text_is_the_mean_over_its_masked_tokens(models):
    scorer, oracle = models
    masked = [
        ([CLS, 7, MASK, 9, MASK, SEP], [2, 4], [8, 11]),
        ([CLS, MASK, SEP], [1], [20]),
    ]
    instances = [
        TrainingInstance(ids, [0] * len(ids), False, positions, labels)
        for ids, positions, labels in masked
    ]
    losses = [
        loss_at(oracle, ids, position, label)
        for ids, positions, labels in masked
        for position, label in zip(positions, labels, strict=True)
    ]
    loss, count = scorer.masked_lm_loss(instances, lambda _: None)
    assert loss == pytest.approx(np.mean(losses), abs=1e-5) and count == 3


def test_vectors_are_means_over_the_tokens_of_each_text(models):
    scorer, oracle = models
    sequences = TokenSequences.join((ids, [0] * len(ids)) for ids in SENTENCES)
    found = scorer.mean_vectors(sequences, lambda _: None)
    expected = [oracle.encode(ids).mean(axis=0) for ids in SENTENCES]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_vectors_need_no_head(tmp_path):
    config = BertConfig(**TINY)
    tensors = random_tensors(encoder_shapes(config))
    scorer = Scorer(write_tf1(tmp_path, tensors, config))
    assert not scorer.has_masked_lm
    sequences = TokenSequences.join([(SENTENCES[0], [0] * 5)])
    found = scorer.mean_vectors(sequences, lambda _: None)
    oracle = NumpyBert(tensors, dataclasses.asdict(config))
    expected = oracle.encode(SENTENCES[0]).mean(axis=0)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
