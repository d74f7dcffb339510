import math

import numpy as np
import pytest
from oracles import files, numpy_bert, samples
from oracles.numpy_bert import NumpyBert
from tokenizers import Tokenizer


def test_gelus_match_hand_worked_values():
    # Phi(1) = 0.841345 by the table of the normal distribution; the approximation is
    # 0.5 (1 + tanh(0.797885 * 1.044715)) = 0.841192.
    assert numpy_bert.gelu_erf(1.0) == pytest.approx(0.841345, abs=1e-6)
    assert numpy_bert.gelu_tanh(1.0) == pytest.approx(0.841192, abs=1e-6)
    assert numpy_bert.gelu_erf(-1.0) == pytest.approx(0.841345 - 1, abs=1e-6)


def test_layer_norm_matches_a_hand_worked_row():
    # Mean 3, variance 8/3.
    scale = math.sqrt(3 / 8)
    row = numpy_bert.layer_norm(np.array([1.0, 3.0, 5.0]), 2.0, 1.0)
    np.testing.assert_allclose(row, [1 - 4 * scale, 1, 1 + 4 * scale], atol=1e-11)


def test_softmax_of_large_scores_is_finite():
    np.testing.assert_allclose(
        numpy_bert.softmax(np.array([1e4, 1e4, -1e4])), [0.5, 0.5, 0.0]
    )


def test_published_cosines_of_minilm_are_reproduced():
    bert = NumpyBert(files.minilm_weights(), files.read_config(files.MINILM))
    # The model's own tokenizer, not ours: nothing here is under test but the oracle.
    tokenizer = Tokenizer.from_file(str(files.require(files.MINILM / "tokenizer.json")))
    tokenizer.no_padding()

    def vector(sentence):
        return samples.mean_vector(bert.encode(tokenizer.encode(sentence).ids))

    own = vector(samples.SENTENCE)
    for sentence, cosine in samples.KNOWN_COSINES.items():
        assert round(float(own @ vector(sentence)), 4) == cosine


def test_vocabularies_of_setup_and_model_are_the_same():
    ours, theirs = files.VOCAB_FILE, files.MINILM / "vocab.txt"
    assert files.require(ours).read_bytes() == files.require(theirs).read_bytes()


def test_rxnfp_predicts_most_masked_tokens_of_reactions():
    bert = NumpyBert(files.rxnfp_weights(), files.read_config(files.RXNFP))
    hits = []
    for ids, positions, answers in samples.masked_reactions():
        logits = bert.masked_lm_logits(bert.encode(ids), positions)
        hits.extend(logits.argmax(-1) == answers)
    assert len(hits) > 200
    assert np.mean(hits) > 0.9  # 0.956 were measured on other reactions.


def test_a_missing_file_names_the_command_that_fetches_it():
    with pytest.raises(AssertionError, match="`make setup` fetches it"):
        files.require(files.DATA / "models/no_such_model/config.json")
