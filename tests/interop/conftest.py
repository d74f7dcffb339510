"""A tiny BERT of random numbers."""

import pytest
from interop.tiny_bert import WORDS, pretraining_shapes, random_tensors, write_tf1

from bert_tf.config import BertConfig


@pytest.fixture(scope="session")
def tiny():
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )


@pytest.fixture(scope="session")
def tiny_tensors(tiny):
    return random_tensors(pretraining_shapes(tiny))


@pytest.fixture
def tf1(tmp_path, tiny, tiny_tensors):
    """A tiny BERT with both heads, slots and vocabulary, as google-research/bert's."""
    return write_tf1(tmp_path / "tf1", tiny_tensors, tiny)
