"""The layers of BERT, named so that variable paths are the original tensor names.

Layers hold variables; their backends compute.
"""

import zlib
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling.backends.choice import Backends, Block
from bert_tf.modeling.backends.interface import (
    DenseWeights,
    Dropout,
    EmbeddingTables,
    Ids,
    NormWeights,
    OutputWeights,
)
from bert_tf.precision import PrecisionPolicy, policy_of_keras


class LayerSettings(NamedTuple):
    """What every layer of one model shares.

    Attributes:
      config: The architecture.
      backends: Compute the layers.
      seed: Decides the initial weights, together with each variable's path.
      recomputes: Whether the backward pass recomputes each encoder layer's activations
        instead of keeping them.
      frozen_layers: The embeddings and so many of the lowest encoder layers get no
        gradient; None: all have one.
    """

    config: BertConfig
    backends: Backends
    seed: int
    recomputes: bool
    frozen_layers: int | None = None

    @property
    def supports_jit(self) -> bool:
        """Whether XLA can compile the layers: not the fused operations."""
        return bool(self.backends.why_not_fused)

    def get_config(self) -> dict[str, Any]:
        """The arguments of `make`, for files of Keras."""
        return {
            "config": self.config.to_dict(),
            "policy": self.backends.policy.get_config(),
            "seed": self.seed,
            "allow_fused": self.backends.allow_fused,
            "recompute": self.recomputes,
            "unpad": self.backends.unpads,
            "frozen_layers": self.frozen_layers,
        }

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The reverse of `get_config`, as arguments of `make`."""
        return config | {
            "config": BertConfig(**config["config"]),
            "policy": PrecisionPolicy.from_config(config["policy"]),
        }

    @classmethod
    def make(
        cls,
        config: BertConfig,
        *,
        policy: PrecisionPolicy | None = None,
        seed: int = 0,
        allow_fused: bool = False,
        recompute: bool = False,
        unpad: bool = True,
        frozen_layers: int | None = None,
    ) -> "LayerSettings":
        """The settings that the layers of one model share; see `ModelOptions`."""
        policy = policy or policy_of_keras()
        backends = Backends(config, policy, allow_fused=allow_fused, unpads=unpad)
        return cls(config, backends, seed, recompute, frozen_layers)


class BertLayer(keras.layers.Layer):
    """A layer that holds the shared settings and makes seeded float32 weights."""

    def __init__(self, settings: LayerSettings, name: str) -> None:
        # Backends choose dtypes; Keras would cast other inputs to float32.
        super().__init__(dtype="float32", autocast=False, name=name)
        self.supports_jit = settings.supports_jit
        self.settings = settings
        self.config = settings.config

    def get_config(self) -> dict[str, Any]:
        """The settings, for files of Keras; layers add their own arguments."""
        frozen = [name for name, layer in named_layers(self) if not layer.trainable]
        return {"settings": self.settings.get_config(), "frozen": frozen}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BertLayer":
        """The layer of `get_config`, not built."""
        config = dict(config)
        settings = LayerSettings.arguments(config.pop("settings"))
        frozen = config.pop("frozen")
        layer = cls(LayerSettings.make(**settings), **config)
        freeze(layer, frozen)
        return layer

    def add_normal(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        """Adds a weight drawn from a normal distribution truncated at two deviations.

        The draw depends on the model's seed and the variable's path alone, so that
        every worker makes the same weights.
        """
        path = f"{self.path}/{name}".encode()
        initializer = keras.initializers.TruncatedNormal(
            stddev=self.config.initializer_range,
            seed=(self.settings.seed + zlib.crc32(path)) % 2**31,
        )
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def dropout(self, rate: float, seed: tf.Tensor, training: bool) -> Dropout:
        """This layer's dropout, with a stream that no other layer of the model uses."""
        stream = zlib.crc32(self.path.encode()) % 2**31
        return Dropout(rate if training else 0.0, seed, stream)

    def blocks(self) -> list[Block]:
        """The blocks inside this layer, each computed once in a call of the model."""
        return []


def named_layers(
    layer: keras.Layer, path: str = ""
) -> Iterator[tuple[str, keras.Layer]]:
    """A layer and all inside, outer ones first, by the names on the way to them."""
    yield path, layer
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from named_layers(inner, f"{path}/{inner.name}")


def freeze(layer: keras.Layer, frozen: Collection[str]) -> None:
    """Makes exactly those layers not trainable whose names are given."""
    for name, inner in named_layers(layer):  # Outer ones set those in them.
        inner.trainable = name not in frozen


class Dense(BertLayer):
    """Variables `kernel` [I, O] and `bias` [O]."""

    def __init__(self, settings: LayerSettings, units: int, name: str) -> None:
        super().__init__(settings, name=name)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_normal("kernel", (input_shape[-1], self.units))
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer="zeros"
        )

    @property
    def pair(self) -> DenseWeights:
        """Kernel and bias as a backend takes them."""
        return DenseWeights(self.kernel, self.bias)


class LayerNorm(BertLayer):
    """Variables `gamma` [H] and `beta` [H]."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="LayerNorm")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1],)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")

    @property
    def pair(self) -> NormWeights:
        """Scale and shift as a backend takes them."""
        return NormWeights(self.gamma, self.beta)


class DenseNorm(BertLayer):
    """Variables of a dense layer to the hidden size, and of the normalisation after."""

    def __init__(self, settings: LayerSettings, name: str) -> None:
        super().__init__(settings, name=name)
        self.dense = Dense(settings, self.config.hidden_size, "dense")
        self.layer_norm = LayerNorm(settings)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.dense.build(input_shape)
        self.layer_norm.build((*input_shape[:-1], self.config.hidden_size))


class OutputLayer(BertLayer):
    """A head's output layer: weights [C, H], as in the original, and bias [C]."""

    def __init__(self, settings: LayerSettings, num_outputs: int, name: str) -> None:
        super().__init__(settings, name=name)
        self.num_outputs = num_outputs

    def build(self, *_: object) -> None:
        shape = (self.num_outputs, self.config.hidden_size)
        self.output_weights = self.add_normal("output_weights", shape)
        self.output_bias = self.add_weight(
            name="output_bias", shape=(self.num_outputs,), initializer="zeros"
        )
        self.backend = self.settings.backends.choose_backend(self.path)

    def call(self, inputs: tf.Tensor, dropout: Dropout | None = None) -> tf.Tensor:
        """[B, N, H] -> [B, N, C] float32."""
        weights = OutputWeights(self.output_weights, self.output_bias)
        return self.backend.output_logits(inputs, weights, dropout)


class Embeddings(BertLayer):
    """Sum of word, segment and position embeddings, normalised."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="embeddings")
        self.layer_norm = LayerNorm(settings)

    def build(self, *_: object) -> None:
        config, width = self.config, self.config.hidden_size
        self.word_embeddings = self.add_normal(
            "word_embeddings", (config.vocab_size, width)
        )
        self.token_type_embeddings = self.add_normal(
            "token_type_embeddings", (config.type_vocab_size, width)
        )
        self.position_embeddings = self.add_normal(
            "position_embeddings", (config.max_position_embeddings, width)
        )
        self.layer_norm.build((None, None, width))
        self.backend = self.settings.backends.choose_backend(self.path)

    def call(
        self,
        input_ids: tf.Tensor,
        segment_ids: tf.Tensor,
        positions: tf.Tensor,
        dropout_seed: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Three [B, S] int32 -> [B, S, H] float32."""
        tables = EmbeddingTables(
            self.word_embeddings,
            self.token_type_embeddings,
            self.position_embeddings,
            self.layer_norm.pair,
        )
        rate = self.config.hidden_dropout_prob
        return self.backend.embeddings(
            tables,
            Ids(input_ids, segment_ids, positions),
            self.dropout(rate, dropout_seed, training),
        )
