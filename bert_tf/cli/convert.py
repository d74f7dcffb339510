"""`python -m bert_tf convert SOURCE DESTINATION`: weights in another format."""

import argparse
import os
from collections.abc import Sequence

from bert_tf.cli.arguments import Parser, parse_bool
from bert_tf.config import checks
from bert_tf.config.paths import (
    require_exists,
    require_file,
    require_local,
    require_possible,
)
from bert_tf.stages import loading_tensorflow

_PROG = "python -m bert_tf convert"
_FORMS = (
    *("transformers", "tensorflow", "safetensors", "torch", "mlperf"),
    *("savedmodel", "onnx", "litert", "openvino", "keras_hub"),
)
KINDS = (
    *("encoder", "embed", "classify", "tag", "choose"),
    *("squad", "fill-mask"),
)


def _make_parser() -> Parser:
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
    _add_options(parser)
    return parser


def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--to",
        "--form",
        dest="form",
        choices=_FORMS,
        help="the format to write. Default: by the destination's name",
    )
    add(
        "--kind",
        choices=KINDS,
        default="",
        help="what a model for a runtime (savedmodel, onnx, litert, openvino) returns: "
        "hidden states, a vector of each row, or logits. Default: by the head",
    )
    add(
        "--int8",
        action="store_true",
        help="store the weights for a runtime in 8 bits, and print what that changes",
    )
    add(
        "--push",
        default="",
        metavar="OWNER/NAME",
        help="upload the files to the Hugging Face hub; a new model is private",
    )
    add(
        "--bert_config_file",
        default="",
        help="the architecture. Default: the config file next to the source",
    )
    add(
        "--vocab_file",
        default="",
        help="the vocabulary. Default: vocab.txt or tokenizer.json next to the source",
    )
    add(
        "--vocab_size",
        type=int,
        help="rows of the word embedding table: adds padding up to a multiple of 8, or "
        "removes it. Default: vocab_size of the architecture",
    )
    add(
        "--do_lower_case",
        type=parse_bool,
        metavar="BOOL",
        help="whether the tokenizer lower-cases. Default: from the files next to the "
        "source, else true if the vocabulary is uncased",
    )
    add("--encoder_only", action="store_true", help="leave out the heads")
    add(
        "--weights_only",
        action="store_true",
        help="write the weights alone, without config and vocabulary",
    )
    add("--overwrite", action="store_true", help="replace existing files")


def main(arguments: Sequence[str]) -> None:
    """Converts, and prints what was read, adapted and written.

    Args:
      arguments: The command line after `convert`.

    Raises:
      ValueError, OSError, RunError: the message is for the user.
    """
    parser = _make_parser()
    options = vars(parser.parse_args(arguments))
    if options["vocab_size"] is None:
        options["vocab_size"] = 0
    else:
        checks.require_positive(argparse.Namespace(**options), "vocab_size")
    parser.warn_about_repeated()
    require_exists("source", options["source"])
    destination = options["destination"]
    require_local("destination", destination)
    if not destination:
        raise ValueError(
            "`destination` must be a path. Received: an empty one. Pass . for this "
            "folder."
        )
    require_possible("destination", os.path.dirname(os.path.abspath(destination)))
    for name in ("bert_config_file", "vocab_file"):
        if options[name]:
            require_file(name, options[name])
    # TensorFlow takes seconds to load, and wrong options should not wait for it.
    with loading_tensorflow():
        from bert_tf.interop.export import Form
        from bert_tf.interop.weight_conversion import ConvertOptions, convert

    form = Form(options["form"]) if options["form"] else None
    source = options.pop("source")
    del options["destination"]
    for line in convert(
        source, destination, ConvertOptions(**options | {"form": form})
    ):
        print(line)
