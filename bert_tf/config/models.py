"""Settings of the commands that write models: `convert`, `vocab extend`."""

import dataclasses
from typing import ClassVar

from bert_tf.config import checks
from bert_tf.config.text import TextConfig

FORMS = (
    *("transformers", "tensorflow", "safetensors", "torch", "mlperf"),
    *("savedmodel", "onnx", "litert", "openvino", "keras_hub"),
)
KINDS = ("encoder", "embed", "classify", "tag", "choose", "squad", "fill-mask")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Converts the weights of a BERT to the format of another program.

    Attributes:
      form: The format to write. Default: by the destination's name.
      kind: What a model for a runtime (savedmodel, onnx, litert, openvino) returns:
        hidden states, a vector of each row, or logits. Default: by the head.
      int8: Store the weights for a runtime in 8 bits, and print what that changes.
      push: OWNER/NAME on the Hugging Face hub, to upload the files to; a new model is
        private.
      bert_config_file: The architecture. Default: the config file next to the source.
      vocab_file: The vocabulary. Default: vocab.txt or tokenizer.json next to the
        source.
      vocab_size: Rows of the word embedding table: adds padding up to a multiple of 8,
        or removes it. Default: vocab_size of the architecture.
      do_lower_case: Whether the tokenizer lower-cases. Default: from the files next to
        the source, else true if the vocabulary is uncased.
      encoder_only: Leave out the heads.
      weights_only: Write the weights alone, without config and vocabulary.
      overwrite: Replace existing files.
    """

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {"form": FORMS, "kind": KINDS}

    form: str = ""
    kind: str = ""
    int8: bool = False
    push: str = ""
    bert_config_file: str = ""
    vocab_file: str = ""
    vocab_size: int | None = None
    do_lower_case: bool | None = None
    encoder_only: bool = False
    weights_only: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_positive(self, "vocab_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtendOptions(TextConfig):
    """Adds the words of a text that a model's vocabulary splits into most pieces.

    Each begins as the mean of its pieces. `data vocab` makes a vocabulary for a new
    model.

    Attributes:
      num_tokens: How many words to add.
      into_unused: Put them in place of [unusedN], not behind all other tokens.
      vocab_file: Default: vocab.txt or tokenizer.json next to the weights.
      do_lower_case: Default: from the files next to the weights, else true if the
        vocabulary is uncased.
      num_processes: Worker processes; 0 means one per core.
      overwrite: Replace existing files.
    """

    REQUIRED = ("input", "num_tokens")

    num_tokens: int = 0
    into_unused: bool = False
    vocab_file: str = ""
    do_lower_case: bool | None = None
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(self, "num_tokens")
        checks.require_not_negative(self, "num_processes")
