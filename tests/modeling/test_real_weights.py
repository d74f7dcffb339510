"""Trained models of others, read into ours, against float64 and published numbers."""

import numpy as np
import pytest
from oracles import files, samples
from oracles.numpy_bert import NumpyBert

from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.interop.huggingface import bert_config_from_huggingface
from bert_tf.modeling.models import build_encoder_model
from bert_tf.modeling.pretraining import build_pretraining_model

# Float32 rounds to 6e-8 of a number; twelve layers of sums over hundreds of numbers up
# to about 20 leave some 1e-5.
TOLERANCE = 1e-4
S = 56


def assert_close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def minilm(set_weights):
    config = bert_config_from_huggingface(files.read_config(files.MINILM))
    model = build_encoder_model(config)
    set_weights(model, files.minilm_weights())
    return model


@pytest.fixture(scope="module")
def minilm_oracle():
    return NumpyBert(files.minilm_weights(), files.read_config(files.MINILM))


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(str(files.require(files.VOCAB_FILE)))


def test_encoder_outputs_of_minilm_match_numpy(
    minilm, minilm_oracle, tokenizer, make_inputs
):
    pairs = [samples.encode_pair(tokenizer, *pair) for pair in samples.PAIRS]
    assert len({len(ids) for ids, _ in pairs}) == len(pairs)
    outputs = minilm(make_inputs([[pair] for pair in pairs], S))
    for row, (ids, segments) in enumerate(pairs):
        hidden = minilm_oracle.encode(ids, segments)
        assert_close(outputs["sequence_output"][row, : len(ids)], hidden)
        assert_close(outputs["pooled_output"][row, 0], minilm_oracle.pool(hidden))


def test_packed_sentences_are_encoded_as_if_each_were_alone(
    minilm, minilm_oracle, tokenizer, make_inputs
):
    pack = [samples.encode_pair(tokenizer, *pair) for pair in samples.PAIRS[1:]]
    outputs = minilm(make_inputs([pack], 70))
    start = 0
    for place, (ids, segments) in enumerate(pack):
        hidden = minilm_oracle.encode(ids, segments)
        end = start + len(ids)
        assert_close(outputs["sequence_output"][0, start:end], hidden)
        assert_close(outputs["pooled_output"][0, place], minilm_oracle.pool(hidden))
        start = end


def test_published_cosines_of_minilm_are_reproduced(minilm, tokenizer, make_inputs):
    sentences = [samples.SENTENCE, *samples.KNOWN_COSINES]
    pairs = [samples.encode_pair(tokenizer, sentence) for sentence in sentences]
    outputs = minilm(make_inputs([[pair] for pair in pairs], S))
    own, *others = (
        samples.mean_vector(row[: len(ids)])
        for row, (ids, _) in zip(outputs["sequence_output"].numpy(), pairs, strict=True)
    )
    cosines = [round(float(own @ other), 4) for other in others]
    assert cosines == list(samples.KNOWN_COSINES.values())


@pytest.fixture(scope="module")
def reactions():
    return list(samples.masked_reactions())


@pytest.fixture(scope="module")
def rxnfp_outputs(set_weights, make_inputs, pad, reactions):
    config = bert_config_from_huggingface(files.read_config(files.RXNFP))
    model = build_pretraining_model(config, max_seq_length=S)
    set_weights(model, files.rxnfp_weights())
    inputs = make_inputs([[(ids, np.zeros_like(ids))] for ids, _, _ in reactions], S)
    inputs["masked_lm_positions"] = pad([p for _, p, _ in reactions], 10)
    return {name: logits.numpy() for name, logits in model(inputs).items()}


def test_both_heads_of_rxnfp_match_numpy(rxnfp_outputs, reactions):
    oracle = NumpyBert(files.rxnfp_weights(), files.read_config(files.RXNFP))
    for row, (ids, positions, _) in enumerate(reactions):
        hidden = oracle.encode(ids)
        masked_lm = rxnfp_outputs["masked_lm_logits"][row, : len(positions)]
        assert_close(masked_lm, oracle.masked_lm_logits(hidden, positions))
        next_sentence = rxnfp_outputs["next_sentence_logits"][row, 0]
        assert_close(next_sentence, oracle.next_sentence_logits(hidden))


def test_rxnfp_predicts_most_masked_tokens_of_reactions(rxnfp_outputs, reactions):
    guesses = rxnfp_outputs["masked_lm_logits"].argmax(-1)
    hits = [
        row[: len(answers)] == answers
        for row, (_, _, answers) in zip(guesses, reactions, strict=True)
    ]
    # 0.956 were measured on other reactions.
    assert np.concatenate(hits).mean() > 0.9
