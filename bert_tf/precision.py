"""Which number type an operation computes in."""

import dataclasses
import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_tf.config.precision_file import (
    EXCEPTIONS,
    LISTS,
    find_precision,
    read_lists,
)
from bert_tf.errors import shown

_LONGEST_NAME = 100
# Operations of two large operands: all the arithmetic, and safe in bfloat16 with
# float32 accumulation.
_MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2")
_REDUCED = {"bf16": tf.bfloat16, "fp16": tf.float16}
# What lists may call an operation of the model that has no name in TensorFlow, or has
# several.
_NAMES = {
    "BatchMatMul": ("BatchMatMul", "BatchMatMulV2"),
    "Gelu": ("Gelu", "HabanaGelu", "HabanaGeluV2"),
    "LayerNorm": ("LayerNorm", "HabanaLayerNorm", "HabanaLayerNormV2"),
    # The losses.
    "LogSoftmax": ("LogSoftmax", "SparseSoftmaxCrossEntropyWithLogits"),
}
_POLICIES_OF_KERAS = {
    "float32": "fp32",
    "mixed_bfloat16": "bf16",
    "mixed_float16": "fp16",
}
# Operations of other systems' lists, which TensorFlow itself does not have.
_FOREIGN = re.compile(r"(Habana|Horovod|_ScopedAllocator)\w*")

Exceptions = tuple[tuple[str, str], ...]
# Type of an operation, and the path of its layer.
Operation = tuple[str, str]


def _matches(exception: tuple[str, str], operation: Operation) -> bool:
    """Whether an exception, a pattern and a type or none, names an operation."""
    (pattern, listed), (kind, name) = exception, operation
    is_of_type = not listed or listed in _names(kind)
    # A pattern may end with the layer or, as in TensorFlow's names, with the type.
    return is_of_type and any(re.search(pattern, n) for n in (name, f"{name}/{kind}"))


def _names(kind: str) -> tuple[str, ...]:
    return _NAMES.get(kind, (kind,))


@dataclasses.dataclass(frozen=True)
class PrecisionRules:
    """The lists of a precision file.

    Attributes:
      allowlist: Types of operations that compute in bfloat16.
      conditional_list: Types that follow their inputs, which are float32 here.
      strict_conditional_list: Types that follow all of their inputs: float32 too.
      non_convertible_exceptions: (pattern, type) of operations that stay in float32;
        an empty type is any.
      convertible_exceptions: (pattern, type) of operations that compute in bfloat16.
    """

    allowlist: tuple[str, ...] = ()
    conditional_list: tuple[str, ...] = ()
    strict_conditional_list: tuple[str, ...] = ()
    non_convertible_exceptions: Exceptions = ()
    convertible_exceptions: Exceptions = ()

    def allows(self, operation: Operation) -> bool:
        """Whether an operation computes in bfloat16."""
        if self.keeps(operation):
            return False
        if any(_matches(entry, operation) for entry in self.convertible_exceptions):
            return True
        return not set(_names(operation[0])).isdisjoint(self.allowlist)

    def keeps(self, operation: Operation) -> bool:
        """Whether an exception keeps an operation in float32."""
        return any(
            _matches(entry, operation) for entry in self.non_convertible_exceptions
        )

    def unused(self, operations: Collection[Operation]) -> list[str]:
        """The entries that decide nothing about some operations, by list."""
        known = {name for kind, _ in operations for name in _names(kind)}
        found = {
            "allowlist": [entry for entry in self.allowlist if entry not in known],
            "conditional_list": [*self.conditional_list],
            "strict_conditional_list": [*self.strict_conditional_list],
        }
        for key in EXCEPTIONS:
            found[key] = [
                shown(" ".join(entry))[1:-1]
                for entry in getattr(self, key)
                if not any(_matches(entry, each) for each in operations)
            ]
        return [f"{key}: {', '.join(names)}" for key, names in found.items() if names]


@dataclasses.dataclass(frozen=True)
class PrecisionPolicy:
    """Decides the compute type of each operation; variables are always float32.

    Attributes:
      name: fp32, bf16 or fp16.
      rules: Of bf16: the lists of a file; None for all matrix products (and, of
        bf16, fused operations where they are built).
      decisions: What each operation of the model computes in, by type and name.
      asked: All operations that the lists were asked for.
    """

    name: str = "fp32"
    rules: PrecisionRules | None = None
    decisions: dict[Operation, str] = dataclasses.field(
        default_factory=dict, compare=False
    )
    asked: set[Operation] = dataclasses.field(default_factory=set, compare=False)

    @property
    def keras_name(self) -> str:
        """The dtype policy of Keras that comes closest: float32 of bf32, for one."""
        names = {ours: name for name, ours in _POLICIES_OF_KERAS.items()}
        return names.get(self.name, "float32")

    def get_config(self) -> dict[str, Any]:
        """Name and lists, for files of Keras."""
        rules = dataclasses.asdict(self.rules) if self.rules else None
        return {"name": self.name, "rules": rules}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PrecisionPolicy":
        """The reverse of `get_config`."""
        rules = config["rules"] and {
            key: tuple(tuple(e) if key in EXCEPTIONS else e for e in entries)
            for key, entries in config["rules"].items()
        }
        return cls(config["name"], PrecisionRules(**rules) if rules else None)

    def compute_dtype(self, operation: str, name: str = "") -> tf.DType:
        """The type that an operation computes in.

        Args:
          operation: TensorFlow's name of the operation's type, such as MatMul; Gelu or
            LayerNorm.
          name: The path of its layer.

        Returns:
          float32, bfloat16 or float16.
        """
        if self.rules is None:
            is_reduced = operation in _MATRIX_PRODUCTS
        else:
            is_reduced = self.rules.allows((operation, name))
        return _REDUCED.get(self.name, tf.float32) if is_reduced else tf.float32

    def record(self, operation: str, name: str) -> None:
        """Adds an operation of the model to the decisions."""
        self.decisions[operation, name] = self.compute_dtype(operation, name).name
        self.asked.add((operation, name))

    def first_kept(
        self, operations: Sequence[Operation], rounded: Sequence[Operation] = ()
    ) -> str:
        """The first of some operations that the lists keep in float32.

        Args:
          operations: Those that are kept unless the lists allow them.
          rounded: Those that are kept only where an exception says so.

        Returns:
          Name and type; empty if the lists keep none of them, or there are no lists.
        """
        if self.rules is None:
            return ""
        self.asked.update((*operations, *rounded))
        kept = [each for each in operations if not self.rules.allows(each)]
        kept += [each for each in rounded if self.rules.keeps(each)]
        return "/".join(kept[0][::-1]) if kept else ""

    def unused_entries(self) -> list[str]:
        """A line about the entries of the lists that decide nothing in the model."""
        unused = self.rules.unused(self.asked) if self.rules else []
        if not unused:
            return []
        return [f"bf16 config: entries without effect here: {'; '.join(unused)}."]


def policy_of_keras() -> PrecisionPolicy:
    """What Keras's global dtype policy means for BERT.

    Raises:
      ValueError: if it asks for weights that are not float32.
    """
    name = keras.config.dtype_policy().name
    if name not in _POLICIES_OF_KERAS:
        raise ValueError(
            "Keras's dtype policy must keep weights in float32. Received: "
            f"{name}. Call `keras.config.set_dtype_policy(policy)` with one of "
            f"{', '.join(_POLICIES_OF_KERAS)}, or pass `policy` to the model."
        )
    return PrecisionPolicy(_POLICIES_OF_KERAS[name])


def read_rules(path: str, setting: str = "bf16_config_path") -> PrecisionRules:
    """Reads a precision file.

    Args:
      path: See `read_lists`.
      setting: See `read_lists`.

    Returns:
      The rules.

    Raises:
      OSError: see `read_lists`.
      ValueError: see `read_lists`; also if there is no such operation.
    """
    lists = read_lists(path, setting)
    rules: dict[str, Any] = {
        key: tuple(_operation(path, key, entry) for entry in lists[key])
        for key in LISTS
    }
    for key in EXCEPTIONS:
        rules[key] = tuple(
            (pattern, kind and _operation(path, key, kind))
            for pattern, kind in lists[key]
        )
    return PrecisionRules(**rules)


def _operation(path: str, key: str, name: str) -> str:
    """A type of operations that TensorFlow, or a system with such files, has."""
    known = [*dir(tf.raw_ops), *_NAMES]
    if name in known or _FOREIGN.fullmatch(name):
        return name
    similar = difflib.get_close_matches(name[:_LONGEST_NAME], known)
    raise ValueError(
        f"{path}: `{key}` must hold types of TensorFlow's operations, those of "
        "tf.raw_ops such as "
        f"{', '.join(similar or _MATRIX_PRODUCTS)}. Received: {shown(name)}. "
        "Correct the file."
    )


def choose_policy(precision: str, bf16_config_path: str) -> PrecisionPolicy:
    """The policy of a run's settings; see `find_precision`.

    Raises:
      OSError, ValueError: see `read_rules`.
    """
    name, path, setting = find_precision(precision, bf16_config_path)
    return PrecisionPolicy(name, read_rules(path, setting) if path else None)
