"""Which backend computes which layer."""

import re
from collections.abc import Iterable

import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.config import BertConfig
from bert_tf.modeling.backends.fused import Fused, why_not
from bert_tf.modeling.backends.interface import (
    AttentionWeights,
    Backend,
    FeedForwardWeights,
    MaskedLmWeights,
)
from bert_tf.modeling.backends.reference import Reference
from bert_tf.modeling.backends.step import CurrentStep, StepScope
from bert_tf.precision import PrecisionPolicy

_SELF = "attention/self"
_DENSE = [f"{_SELF}/{name}" for name in ("query", "key", "value")]
_DENSE += ["attention/output/dense", "intermediate/dense", "output/dense"]
# Layers by the pattern of their path -> their products: types of TensorFlow's
# operations, and where in the layer they stand.
_PRODUCTS = {
    "bert/encoder/layer_[0-9]+": [
        ("BatchMatMul", _SELF),
        *(("MatMul", place) for place in _DENSE),
    ],
    "bert/pooler": [("MatMul", "dense")],
    "cls/predictions": [("MatMul", "transform/dense"), ("MatMul", "")],
}
# Those that have fused operations -> where these stand.
_FUSED = {
    "bert/encoder/layer_[0-9]+": [
        *(_SELF, *_DENSE, "attention/output/LayerNorm", "output/LayerNorm"),
    ],
    "cls/predictions": [""],
}
# What they stand for; they compute in float32 inside.
_FUSED_TYPES = ("BiasAdd", "Softmax", "MatMul", "BatchMatMul")

Block = tuple[Backend, AttentionWeights | FeedForwardWeights | MaskedLmWeights]


class Backends:
    """The backends of one model, and which layer has which.

    Attributes:
      why_not_fused: Why no layer may have the compiled operations; empty if they may.
      exempt: Layers that may not, and what of them the precision list exempts.
      unpads: Whether the compiled operations leave out padding.
    """

    def __init__(
        self,
        config: BertConfig,
        policy: PrecisionPolicy,
        *,
        allow_fused: bool = False,
        unpads: bool = True,
    ) -> None:
        """Makes the backends.

        Args:
          config: The architecture.
          policy: Decides compute types.
          allow_fused: Whether the compiled operations may be used where they are built.
          unpads: See `Fused`.
        """
        self.unpads = unpads
        self._policy = policy
        self._current = CurrentStep()
        self._reference = Reference(config, policy, self._current)
        self._fused: Fused | None = None
        self._fused_layers: set[str] = set()
        self.exempt: dict[str, str] = {}
        self.why_not_fused = _why_not_fused(config, policy, allow_fused=allow_fused)
        if not self.why_not_fused:
            dtype = tf.bfloat16 if policy.name == "bf16" else tf.float32
            self._fused = Fused(
                config, policy, self._current, dtype=dtype, unpads=unpads
            )

    def choose_backend(self, path: str) -> Backend:
        """The backend of a layer, and of those inside of it: the only choice there is.

        Args:
          path: Of the layer.
        """
        layer, pattern = _layer_at(path)
        for operation, place in _PRODUCTS.get(pattern, ()):
            self._policy.record(operation, _join(layer, place))
        if self._fused is None or pattern not in _FUSED:
            return self._reference
        exempt = self._policy.first_kept(
            (operation, _join(layer, place))
            for place in _FUSED[pattern]
            for operation in _FUSED_TYPES
        )
        if exempt:
            self.exempt[layer] = exempt
            return self._reference
        self._fused_layers.add(layer)
        return self._fused

    @property
    def fused_dtype(self) -> tf.DType | None:
        """Of activations where the compiled operations make them; None for nowhere."""
        return self._fused.dtype if self._fused_layers else None

    def step_scope(
        self, blocks: Iterable[Block], *, accumulates: bool = False
    ) -> StepScope:
        """What the calls of a step, or of an evaluation, share; see `StepScope`.

        Args:
          blocks: Each block of the model that is computed once in each call.
          accumulates: See `StepScope`.
        """
        products = [p for backend, block in blocks for p in backend.products_of(block)]
        return StepScope(self._current, products, accumulates=accumulates)


def _layer_at(path: str) -> tuple[str, str]:
    """The layer at or around a path, and its pattern; empty if it has no products."""
    for pattern in _PRODUCTS:
        if found := re.match(f"{pattern}(?=/|$)", path):
            return found[0], pattern
    return "", ""


def _join(layer: str, place: str) -> str:
    return f"{layer}/{place}" if place else layer


def _why_not_fused(
    config: BertConfig, policy: PrecisionPolicy, *, allow_fused: bool
) -> str:
    if not allow_fused:
        return "the model was built without them"
    if not fused_ops.are_in_use():
        return "they are not in use"
    if policy.name == "fp16":
        return "precision fp16"
    return why_not(config)
