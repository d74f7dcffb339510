"""Trained weights in our model give what NumPy computes from the same weights."""

import numpy as np
import pytest
from oracles import models
from oracles.numpy_bert import NumpyBert

from bert_tf.config import BertConfig
from bert_tf.data.tokenization import WordPieceTokenizer
from bert_tf.modeling.tasks import build_encoder_model, build_pretraining_model

TEXTS = [
    *models.SENTENCES,
    "The state of the Union, in 1862, was naïve: its pre-war commerce had collapsed!",
    "Short.",
]


def assign(model, tensors):
    """Sets every weight, and checks that none is left over on either side."""
    variables = {v.path: v for v in model.trainable_variables}
    assert set(variables) == set(tensors)
    for name, variable in variables.items():
        variable.assign(tensors[name])


def inputs_of(ids, mask, segments):
    return {
        "input_ids": ids,
        "input_mask": mask,
        "segment_ids": segments,
        "positions": np.tile(np.arange(ids.shape[1], dtype="i4"), (len(ids), 1)),
        "next_sentence_positions": np.zeros((len(ids), 1), "i4"),
    }


@pytest.fixture(scope="module")
def minilm():
    tensors, config, folder = models.minilm()
    model = build_encoder_model(BertConfig.from_dict(config))
    assign(model, tensors)
    tokenizer = WordPieceTokenizer(str(folder / "vocab.txt"))
    cls, sep = tokenizer.special.cls, tokenizer.special.sep
    rows = [[cls, *row, sep] for row in tokenizer.encode(TEXTS)]
    arrays = models.padded(rows, 40)
    return model(inputs_of(*arrays)), NumpyBert(tensors, config), arrays


def test_encoder_agrees_with_numpy(minilm):
    outputs, oracle, arrays = minilm
    hidden = oracle.encode(*arrays)
    is_real = arrays[1] > 0
    ours = outputs["sequence_output"].numpy()
    assert np.abs(ours - hidden)[is_real].max() < 1e-4
    assert np.abs(
        outputs["pooled_output"].numpy()[:, 0] - oracle.pool(hidden)
    ).max() < (1e-4)


def test_encoder_gives_the_published_cosines(minilm):
    outputs, _, (_, mask, _) = minilm
    cosines = models.mean_cosines(outputs["sequence_output"].numpy()[:4], mask[:4])
    np.testing.assert_allclose(cosines, models.COSINES, atol=6e-5)  # 4 digits


def test_whole_pretraining_head_agrees_with_numpy():
    tensors, config, folder = models.rxnfp()
    model = build_pretraining_model(BertConfig.from_dict(config))
    assign(model, tensors)
    arrays, positions, weights, answers = models.masked_reactions(folder)
    outputs = model(inputs_of(*arrays) | {"masked_lm_positions": positions})
    oracle = NumpyBert(tensors, config)
    hidden = oracle.encode(*arrays)
    logits = outputs["masked_lm_logits"].numpy()
    assert np.abs(logits - oracle.masked_lm_logits(hidden, positions)).max() < 1e-4
    pairs = outputs["next_sentence_logits"].numpy()[:, 0]
    assert np.abs(pairs - oracle.next_sentence_logits(hidden)).max() < 1e-4
    assert (logits.argmax(-1) == answers)[weights > 0].mean() > 0.8
