"""The layers of BERT, named so that variable paths are the original tensor names."""

import zlib
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import fused, ops, products
from bert_tf.precision import PrecisionPolicy


class LayerSettings(NamedTuple):
    """What every layer of one model shares.

    Attributes:
      config: The architecture.
      policy: Decides compute types.
      seed: Decides the initial weights, together with each variable's path.
      fused_dtype: The type of activations in the encoder where it computes by `fused`
        and `products`, bfloat16 or float32; None where it does by `ops`. The mask that
        layers get is in the first case `input_mask` [B, S], and activations may be
        [T, H] (see `fused.Layout`); in the second it is what is added to
        scores, [B, 1, S, S].
      unpads: Whether the encoder leaves out the padding behind the tokens of a row.
      packed: The packed matrices of its layers.
      recomputes: Whether the backward pass makes each encoder layer's activations
        again instead of keeping them.
    """

    config: BertConfig
    policy: PrecisionPolicy
    seed: int
    fused_dtype: tf.DType | None
    unpads: bool
    packed: products.PackedKernels
    recomputes: bool

    @property
    def is_fused(self) -> bool:
        """Whether the encoder computes by `fused` and `products`."""
        return self.fused_dtype is not None


class BertLayer(keras.layers.Layer):
    """A layer that holds the shared settings and makes seeded float32 weights."""

    def __init__(self, settings: LayerSettings, **kwargs: Any) -> None:  # noqa: ANN401
        # Fused layers take bfloat16; Keras would make float32 of it.
        super().__init__(dtype="float32", autocast=False, **kwargs)
        self.settings = settings
        self.config = settings.config

    def add_normal(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        """Adds a weight drawn from a normal distribution cut at two deviations.

        The draw depends on the model's seed and the variable's path alone, so that
        every worker makes the same weights.
        """
        path = f"{self.path}/{name}".encode()
        initializer = keras.initializers.TruncatedNormal(
            stddev=self.config.initializer_range,
            seed=(self.settings.seed + zlib.crc32(path)) % 2**31,
        )
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def multiply(
        self,
        inputs: tf.Tensor,
        kernels: list[keras.Variable],
        *,
        shares_inputs: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[..., I] times n matrices [I, O] side by side, of the fused path's type.

        Returns:
          [..., n O], and the inputs: for their other uses, if `shares_inputs`.
        """
        matrices = [tf.convert_to_tensor(kernel) for kernel in kernels]
        packed = self.settings.packed.by_path.get(self.path)
        return products.product(inputs, matrices, packed, shares_x=shares_inputs)

    def stream(self, number: int) -> int:
        """Number of a dropout stream that no other layer of the model uses."""
        return (zlib.crc32(self.path.encode()) + number) % 2**31


class Dense(BertLayer):
    """y = x W + b, with variables `kernel` [I, O] and `bias` [O]."""

    def __init__(self, settings: LayerSettings, units: int, name: str) -> None:
        super().__init__(settings, name=name)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes kernel and bias for inputs of width `input_shape[-1]`."""
        self.kernel = self.add_normal("kernel", (input_shape[-1], self.units))
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer="zeros"
        )

    def matrices(self) -> list[keras.Variable]:
        """What is prepacked."""
        return [self.kernel]

    def product(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., I] -> [..., O], of the fused path's type, without the bias."""
        self.settings.policy.compute_dtype("MatMul", self.path)  # For the record.
        return self.multiply(inputs, self.matrices())[0]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., I] float32 -> [..., O] float32."""
        dtype = self.settings.policy.compute_dtype("MatMul", self.path)
        rows = tf.reshape(inputs, [-1, inputs.shape[-1]])
        product = ops.matmul(rows, tf.convert_to_tensor(self.kernel), dtype)
        product = tf.nn.bias_add(product, tf.convert_to_tensor(self.bias))
        shape = tf.concat([tf.shape(inputs)[:-1], [self.units]], axis=0)
        outputs = tf.reshape(product, shape)
        outputs.set_shape([*inputs.shape[:-1], self.units])
        return outputs


class LayerNorm(BertLayer):
    """Layer normalisation with variables `gamma` [H] and `beta` [H]."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="LayerNorm")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes scale and shift for the last axis."""
        shape = (input_shape[-1],)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., H] -> [..., H], float32."""
        gamma, beta = map(tf.convert_to_tensor, (self.gamma, self.beta))
        return ops.layer_norm(inputs, gamma, beta, self.config.layer_norm_eps)


class Embeddings(BertLayer):
    """Sum of word, segment and position embeddings, normalised."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="embeddings")
        self.layer_norm = LayerNorm(settings)

    def build(self, *_: Any) -> None:  # noqa: ANN401
        """Makes the three tables."""
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

    def call(
        self,
        input_ids: tf.Tensor,
        segment_ids: tf.Tensor,
        positions: tf.Tensor,
        dropout_key: tf.Tensor,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Three [B, S] int32 -> [B, S, H] float32, and the word table [V, H]."""
        table = tf.convert_to_tensor(self.word_embeddings)
        words, table = ops.look_up(table, input_ids)
        # A product with one-hot rows: its gradient is a product too, where that of
        # a gather would add B * S rows into a table of two, one after another.
        one_hot = tf.one_hot(segment_ids, self.config.type_vocab_size)
        segments = one_hot @ tf.convert_to_tensor(self.token_type_embeddings)
        places = tf.gather(tf.convert_to_tensor(self.position_embeddings), positions)
        x = self.layer_norm(words + segments + places)
        if training:
            rate = self.config.hidden_dropout_prob
            x = ops.dropout(x, rate, dropout_key, self.stream(0))
        return x, table


class ResidualOutput(BertLayer):
    """The end of a sub-layer: dense, dropout, residual, layer normalisation."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="output")
        self.dense = Dense(settings, self.config.hidden_size, "dense")
        self.layer_norm = LayerNorm(settings)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the projection from width `input_shape[-1]` to H."""
        self.dense.build(input_shape)
        self.layer_norm.build((*input_shape[:-1], self.config.hidden_size))

    def call(
        self,
        inputs: tf.Tensor,
        residual: tf.Tensor,
        mask: tf.Tensor,
        dropout_key: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """[B, S, I] and the sub-layer's input [B, S, H] -> [B, S, H]."""
        if self.settings.is_fused:
            product = self.dense.product(inputs)
            return self.finish(product, residual, mask, dropout_key, training)
        x = self.dense(inputs)
        if training:
            rate = self.config.hidden_dropout_prob
            x = ops.dropout(x, rate, dropout_key, self.stream(0))
        return self.layer_norm(x + residual)

    def finish(
        self,
        product: tf.Tensor,
        residual: tf.Tensor,
        mask: tf.Tensor,
        dropout_key: tf.Tensor,
        training: bool,
    ) -> tf.Tensor:
        """All but the product of the dense layer, fused."""
        norm = self.layer_norm
        weights = (self.dense.bias, norm.gamma, norm.beta)
        bias, gamma, beta = map(tf.convert_to_tensor, weights)
        return fused.dropout_add_norm(
            product,
            bias,
            residual,
            gamma,
            beta,
            mask,
            dropout_key,
            rate=self.config.hidden_dropout_prob if training else 0.0,
            stream=self.stream(0),
            epsilon=self.config.layer_norm_eps,
        )
