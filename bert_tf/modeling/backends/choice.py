"""Which backend computes which layer."""

import re
from collections.abc import Iterable

import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.config import BertConfig
from bert_tf.modeling.backends.fused import Fused, why_not
from bert_tf.modeling.backends.fused_products import is_tensorflow_faster
from bert_tf.modeling.backends.interface import BlockWeights
from bert_tf.modeling.backends.reference import Reference, activation_type
from bert_tf.modeling.backends.step import ModelStep, Recorder
from bert_tf.precision import PrecisionPolicy

_SELF = "attention/self"
_DENSE = [f"{_SELF}/{name}" for name in ("query", "key", "value")]
_DENSE += ["attention/output/dense", "intermediate/dense", "output/dense"]
_ACTIVATION = "activation"  # Stands for the type that the architecture names.
# Pattern of a layer's path -> its operations that precision lists decide about: types,
# and paths within the layer.
_OPERATIONS = {
    "bert/embeddings": [("LayerNorm", "LayerNorm")],
    "bert/encoder/layer_[0-9]+": [
        ("BatchMatMul", _SELF),
        ("Softmax", _SELF),
        *(("MatMul", part) for part in _DENSE),
        ("LayerNorm", "attention/output/LayerNorm"),
        (_ACTIVATION, "intermediate"),
        ("LayerNorm", "output/LayerNorm"),
    ],
    "bert/pooler": [("MatMul", "dense")],
    "cls/predictions": [
        *(("MatMul", "transform/dense"), (_ACTIVATION, "transform")),
        *(("LayerNorm", "transform/LayerNorm"), ("MatMul", ""), ("LogSoftmax", "")),
    ],
    "cls/seq_relationship": [("LogSoftmax", "")],
    "cls/squad": [("LogSoftmax", "")],
    "classifier": [("LogSoftmax", "")],
}
# Pattern of a layer that has fused operations -> the parts that these compute. The
# reference has bfloat16 activations in the same layers, under XLA.
_FUSED = {
    "bert/encoder/layer_[0-9]+": [
        *(_SELF, *_DENSE, "attention/output/LayerNorm", "output/LayerNorm"),
    ],
    "cls/predictions": [""],
}
# TensorFlow's operations that the fused ones replace. Those compute in bfloat16 what a
# list would exempt, so a layer with an exempt one is the reference's, with float32
# activations.
_FUSED_TYPES = ("BiasAdd", "Softmax", "MatMul", "BatchMatMul")
# These read and write bfloat16 there too, and are float32 inside. Lists need not name
# them, since their neighbours are in bfloat16; but they may keep them in float32.
_ROUNDED_TYPES = ("LayerNorm", "Gelu", "Relu", "Tanh", "LogSoftmax")

Block = tuple[Reference, BlockWeights]


class Backends:
    """The backends of one model, and the choice for each of its layers.

    Attributes:
      policy: Decides compute types.
      allow_fused: Whether the fused operations may be used where they are built.
      why_not_fused: Why no layer can be fused; empty if layers can.
      exempt: Layer that is not fused, or whose activations are float32 under XLA ->
        the operation that the precision list exempts.
      unpads: Whether fused layers leave out padding.
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
          allow_fused: Whether the fused operations may be used where they are built.
          unpads: See `Fused`.
        """
        self.policy = policy
        self.allow_fused = allow_fused
        self.unpads = unpads
        self._config = config
        self._recorder = Recorder()
        self._reference = Reference(config, policy, self._recorder)
        # Of the layers of `_FUSED` that are not exempt.
        self._chosen = self._reference
        self._fused_layers: set[str] = set()
        self.exempt: dict[str, str] = {}
        self.why_not_fused = _why_not_fused(config, policy, allow_fused=allow_fused)
        if not self.why_not_fused:
            dtype = tf.bfloat16 if policy.name == "bf16" else tf.float32
            self._chosen = Fused(
                config, policy, self._recorder, dtype=dtype, unpads=unpads
            )
        elif policy.name == "bf16" and not allow_fused:
            # XLA may compile the steps.
            self._chosen = Reference(config, policy, self._recorder, dtype=tf.bfloat16)

    def choose_backend(self, path: str) -> Reference:
        """The only choice of a layer's backend; the layers inside have the same.

        The policy records the types of the layer's operations, `exempt` the one that
        the precision list keeps in float32.

        Args:
          path: The layer's path.
        """
        layer, pattern = _layer_at(path)
        known = [
            (activation_type(self._config) if kind == _ACTIVATION else kind, part)
            for kind, part in _OPERATIONS.get(pattern, ())
        ]
        for kind, part in known:
            self.policy.record(kind, _join(layer, part))
        if self._chosen is self._reference or pattern not in _FUSED:
            return self._reference
        parts = _FUSED[pattern]
        exempt = self.policy.first_kept(
            [(kind, _join(layer, part)) for part in parts for kind in _FUSED_TYPES],
            [
                (kind, _join(layer, part))
                for kind, part in known
                if kind in _ROUNDED_TYPES and part in (*parts, "intermediate")
            ],
        )
        if exempt:
            self.exempt[layer] = exempt
            return self._reference
        if isinstance(self._chosen, Fused):
            self._fused_layers.add(layer)
        return self._chosen

    def loss_dtype(self, path: str) -> tf.DType:
        """What the loss of a head's logits computes in."""
        return self.policy.compute_dtype("LogSoftmax", path)

    @property
    def fused_dtype(self) -> tf.DType | None:
        """The type of activations in fused layers; None if no layer is fused."""
        return self._chosen.dtype if self._fused_layers else None

    @property
    def takes_gradients_of_tensorflow(self) -> bool:
        """Whether TensorFlow's products compute gradients of fused layers' kernels."""
        size = self._config.hidden_size
        is_bfloat16 = self.fused_dtype == tf.bfloat16
        return is_bfloat16 and is_tensorflow_faster(size, size)

    def step_scope(self, blocks: Iterable[Block], *, accumulates: bool) -> ModelStep:
        """The step scopes of all backends; see `Reference.step_scope`.

        Args:
          blocks: Each block that the model computes once in each call.
          accumulates: Whether gradients may be added up over the calls inside.
        """
        by_backend: dict[Reference, list[BlockWeights]] = {}
        for backend, weights in blocks:
            by_backend.setdefault(backend, []).append(weights)
        scopes = [
            backend.step_scope(weights, accumulates=accumulates)
            for backend, weights in by_backend.items()
        ]
        return ModelStep(self._recorder, scopes)


def _layer_at(path: str) -> tuple[str, str]:
    """The layer that a path is of or inside of, and its pattern; empty for others."""
    for pattern in _OPERATIONS:
        if found := re.match(f"{pattern}(?=/|$)", path):
            return found[0], pattern
    return "", ""


def _join(layer: str, part: str) -> str:
    return f"{layer}/{part}" if part else layer


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
