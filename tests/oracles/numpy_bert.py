"""BERT's forward pass in plain NumPy, float64, one sequence without padding at a time.

Written from Devlin et al. 2019 (arXiv:1810.04805), Vaswani et al. 2017
(arXiv:1706.03762), Ba et al. 2016 (arXiv:1607.06450), Hendrycks and Gimpel 2016
(arXiv:1606.08415). It has no masks and no batches on purpose: a model that has them
must agree with one that needs none. Weights go by google-research/bert's names,
configs are the dictionaries in `bert_config.json`.
"""

import numpy as np
from scipy import special

EPSILON = 1e-12


def gelu_erf(x):
    return x * special.ndtr(x)  # x times the normal distribution's cumulative one


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {"gelu": gelu_erf, "gelu_new": gelu_tanh, "gelu_tanh": gelu_tanh}


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def layer_norm(x, gamma, beta, epsilon=EPSILON):
    deviation = np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return (x - x.mean(-1, keepdims=True)) / deviation * gamma + beta


class NumpyBert:
    """A BERT of float64 arrays."""

    def __init__(self, weights, config):
        self.weights = weights
        self.config = config

    def _get(self, name):
        return np.asarray(self.weights[name], np.float64)

    def _rows(self, table, ids):
        return np.asarray(self.weights[f"bert/embeddings/{table}"][ids], np.float64)

    def _dense(self, x, scope):
        return x @ self._get(f"{scope}/kernel") + self._get(f"{scope}/bias")

    def _norm(self, x, scope):
        scope = f"{scope}/LayerNorm"
        return layer_norm(x, self._get(f"{scope}/gamma"), self._get(f"{scope}/beta"))

    def _activate(self, x):
        return ACTIVATIONS[self.config["hidden_act"]](x)

    def embed(self, input_ids, segment_ids):
        x = self._rows("word_embeddings", np.asarray(input_ids))
        x = x + self._rows("token_type_embeddings", np.asarray(segment_ids))
        x = x + self._rows("position_embeddings", np.arange(len(input_ids)))
        return self._norm(x, "bert/embeddings")

    def _attend(self, x, scope):
        query, key, value = (
            self._dense(x, f"{scope}/{name}") for name in ("query", "key", "value")
        )
        width = x.shape[-1] // self.config["num_attention_heads"]
        contexts = []
        for start in range(0, x.shape[-1], width):
            head = slice(start, start + width)
            scores = query[:, head] @ key[:, head].T / np.sqrt(width)
            contexts.append(softmax(scores) @ value[:, head])
        return np.concatenate(contexts, axis=-1)

    def _encode_layer(self, x, scope):
        context = self._attend(x, f"{scope}/attention/self")
        projected = self._dense(context, f"{scope}/attention/output/dense")
        x = self._norm(x + projected, f"{scope}/attention/output")
        wide = self._activate(self._dense(x, f"{scope}/intermediate/dense"))
        narrow = self._dense(wide, f"{scope}/output/dense")
        return self._norm(x + narrow, f"{scope}/output")

    def encode(self, input_ids, segment_ids=None):
        """[S] ids of one sequence, without padding -> hidden states [S, H]."""
        if segment_ids is None:
            segment_ids = np.zeros(len(input_ids), int)
        x = self.embed(input_ids, segment_ids)
        for number in range(self.config["num_hidden_layers"]):
            x = self._encode_layer(x, f"bert/encoder/layer_{number}")
        return x

    def pool(self, hidden):
        """[S, H] -> [H]."""
        return np.tanh(self._dense(hidden[0], "bert/pooler/dense"))

    def masked_lm_logits(self, hidden, positions):
        """[S, H] and [P] positions -> [P, V]."""
        scope = "cls/predictions/transform"
        x = self._activate(self._dense(hidden[positions], f"{scope}/dense"))
        table = self._get("bert/embeddings/word_embeddings")
        return self._norm(x, scope) @ table.T + self._get("cls/predictions/output_bias")

    def next_sentence_logits(self, hidden):
        """[S, H] -> [2]: first "follows", then "random"."""
        scope = "cls/seq_relationship"
        weights = self._get(f"{scope}/output_weights")
        return weights @ self.pool(hidden) + self._get(f"{scope}/output_bias")
