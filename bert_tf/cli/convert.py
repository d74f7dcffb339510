"""`python -m bert_tf convert SOURCE DESTINATION`: weights in another format."""

import os
from collections.abc import Sequence

from bert_tf.cli.arguments import Parser, add_options
from bert_tf.config.models import ConvertOptions
from bert_tf.config.paths import (
    require_exists,
    require_file,
    require_local,
    require_possible,
)
from bert_tf.interop.weight_conversion import convert

_PROG = "python -m bert_tf convert"


def make_parser() -> Parser:
    """Makes the parser of the options."""
    parser = Parser(
        prog=_PROG,
        description="Converts the weights of a BERT to the format of another program.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        help="a TensorFlow checkpoint (of google-research/bert, this program or Model "
        "Garden), a .safetensors, .bin or .pt file, a folder with one or with a preset "
        "of keras-hub, or hf://OWNER/NAME of the Hugging Face hub",
    )
    parser.add_argument(
        "destination",
        help="a folder for transformers; NAME.ckpt for a TensorFlow checkpoint; or a "
        "file in .safetensors, .bin (PyTorch) or .pt (MLPerf's PyTorch); with --to the "
        "folder, or the file in .onnx, .tflite or .xml",
    )
    add_options(parser, ConvertOptions, {"form": "--to"})
    return parser


def main(arguments: Sequence[str]) -> None:
    """Converts, and prints what was read, adapted and written.

    Args:
      arguments: The command line after `convert`.

    Raises:
      ValueError, OSError, RunError: the message is for the user.
    """
    parser = make_parser()
    values = vars(parser.parse_args(arguments))
    source, destination = values.pop("source"), values.pop("destination")
    options = ConvertOptions(**values)
    parser.warn_about_repeated()
    require_exists("source", source)
    require_local("destination", destination)
    if not destination:
        raise ValueError(
            "`destination` must be a path. Received: an empty one. Pass . for this "
            "folder."
        )
    require_possible("destination", os.path.dirname(os.path.abspath(destination)))
    for name in ("bert_config_file", "vocab_file"):
        if path := getattr(options, name):
            require_file(name, path)
    for line in convert(source, destination, options):
        print(line)
