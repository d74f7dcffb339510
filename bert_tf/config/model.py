"""The architecture of a BERT: `bert_config.json` in and out, and presets."""

import dataclasses
import difflib
import logging
import os
from typing import Any

from bert_tf.config import checks
from bert_tf.errors import shown
from bert_tf.json_files import read_json_object

_LOGGER = logging.getLogger(__name__)

# "gelu" is the error-function form of the paper; the others name the tanh
# approximation that google-research/bert's later code computes.
ACTIVATIONS = ("gelu", "gelu_tanh", "gelu_new", "gelu_pytorch_tanh", "relu", "tanh")

# Keys that published configuration files carry and that do not change the model.
_KEYS_WITHOUT_EFFECT = frozenset(
    "architectures attention_dropout classifier_dropout directionality dtype "
    "finetuning_task gradient_checkpointing id2label is_decoder label2id model_type "
    "num_labels output_attentions output_hidden_states output_past pad_token_id "
    "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
    "pooler_size_per_head pooler_type position_embedding_type pruned_heads "
    "torch_dtype torchscript transformers_version use_bfloat16 use_cache "
    "_name_or_path".split()
)

# Keys without which the shape of the weights is unknown; the others have defaults, as
# in the original program.
ESSENTIAL_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)

# Keys of variants that are not implemented -> the only value that is.
_ONLY_VALUES = {"position_embedding_type": "absolute", "is_decoder": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The shape of a BERT, with the keys of google-research's `bert_config.json`.

    Attributes:
      vocab_size: Number of tokens in the vocabulary.
      hidden_size: Width of the encoder.
      num_hidden_layers: Number of encoder layers.
      num_attention_heads: Number of attention heads; divides hidden_size.
      intermediate_size: Width of the feed-forward layer.
      hidden_act: Activation of the feed-forward layer: gelu (error function),
        gelu_tanh (approximation; also gelu_new, gelu_pytorch_tanh), relu or tanh.
      hidden_dropout_prob: Dropout of embeddings and of each sub-layer's output.
      attention_probs_dropout_prob: Dropout of the attention probabilities.
      max_position_embeddings: Maximum number of tokens of a sequence.
      type_vocab_size: Number of segment ids.
      initializer_range: Standard deviation of the truncated normal initial weights.
      layer_norm_eps: Added to the variance in layer normalisation.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        """Checks each field and that the heads divide the width."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if field.type is float else (field.type,)
            checks.require(
                isinstance(value, kinds) and not isinstance(value, bool),
                field.name,
                f"be of type {field.type.__name__}",
                value,
            )
        checks.require_positive(
            self,
            *ESSENTIAL_KEYS,
            "type_vocab_size",
            "initializer_range",
            "layer_norm_eps",
        )
        checks.require_probability(
            self, "hidden_dropout_prob", "attention_probs_dropout_prob"
        )
        checks.require_choice(self, "hidden_act", ACTIVATIONS)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "`hidden_size` must be divisible by `num_attention_heads`. "
                f"Received: hidden_size={self.hidden_size}, "
                f"num_attention_heads={self.num_attention_heads}."
            )

    @property
    def head_size(self) -> int:
        """Width D of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def without_dropout(self) -> "BertConfig":
        """The same architecture with both dropout probabilities at 0."""
        return dataclasses.replace(
            self, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )

    def to_dict(self) -> dict[str, Any]:
        """The keys and values of `bert_config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "the dictionary"):  # noqa: ANN206
        """Makes a config from the keys of a `bert_config.json`.

        Args:
          values: Key -> value. Keys of published files that do not affect the model
            are ignored; other unknown keys are ignored with a warning.
          source: Where the values come from, for messages.

        Returns:
          The config.

        Raises:
          ValueError: if a value is out of range, or a key is a misspelt one.
        """
        for key, only in _ONLY_VALUES.items():
            if values.get(key, only) != only:
                raise ValueError(
                    f"{source}: `{key}` must be {only!r}, the only variant that is "
                    f"implemented. Received: {key}={shown(values[key])}. Use another "
                    "model."
                )
        missing = [key for key in ESSENTIAL_KEYS if key not in values]
        if missing:
            raise ValueError(
                f"{source} must have the keys {', '.join(ESSENTIAL_KEYS)}. Received: "
                f"no {', '.join(missing)}. Use the file that belongs to the weights, "
                "or add the keys."
            )
        known = {field.name for field in dataclasses.fields(cls)}
        for key in sorted(set(values) - known - _KEYS_WITHOUT_EFFECT):
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
            if close:
                raise ValueError(
                    f"{source} has the unknown key `{shown(key)[1:-1]}`. Did you mean "
                    f"`{close[0]}`? Correct the key, or remove it."
                )
            _LOGGER.warning("%s: the unknown key %s is ignored.", source, shown(key))
        try:
            return cls(**{key: values[key] for key in values.keys() & known})
        except ValueError as error:
            raise ValueError(f"{source}: {error} Correct the file.") from error

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]):  # noqa: ANN206
        """Reads a `bert_config.json`.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is not a JSON object or a value is out of range.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"`bert_config_file` must be a file. Received: {path}, which does not "
                "exist. Pass --bert_config_file=PATH/bert_config.json, or --preset "
                f"with one of {', '.join(PRESETS)}."
            )
        return cls.from_dict(read_json_object(path), source=str(path))


def _preset(layers: int, hidden: int) -> BertConfig:
    """A member of the published family: heads of 64, feed-forward of 4 widths."""
    return BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )


# Source: Turc et al. 2019 (arXiv:1908.08962), and Devlin et al. 2019 for the last two.
PRESETS: dict[str, BertConfig] = {
    "tiny": _preset(2, 128),
    "mini": _preset(4, 256),
    "small": _preset(4, 512),
    "medium": _preset(8, 512),
    "base": _preset(12, 768),
    "large": _preset(24, 1024),
}
