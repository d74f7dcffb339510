#!/usr/bin/env python
"""Vectors of all tokens as JSON lines, with google-research/bert's command line.

    python scripts/extract_features.py --input_file=text.txt --output_file=out.jsonl \
        --bert_config_file=MODEL/bert_config.json --vocab_file=MODEL/vocab.txt \
        --init_checkpoint=MODEL/bert_model.ckpt --layers=-1,-2

Each line of the input is a text, or two texts separated by |||.
"""

import argparse
import filecmp
import json
import os
import sys

from bert_tf.cli.arguments import Parser, parse_bool
from bert_tf.config.paths import require_local, require_output_file
from bert_tf.data.text.documents import read_lines
from bert_tf.errors import RunError
from bert_tf.files import whole_file
from bert_tf.interop.ready_model import find_model
from bert_tf.interop.weight_files import find_source
from bert_tf.progress import ProgressReport
from bert_tf.stages import loading_tensorflow

_WITHOUT_EFFECT = ("use_tpu", "use_one_hot_embeddings", "master", "num_tpu_cores")


def _layers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers such as -1,-2, not {text!r}"
        ) from None


def _warn_of_unused(options: argparse.Namespace) -> None:
    """Prints a line for what the original reads and this script does not."""
    names = [f"--{n}" for n in _WITHOUT_EFFECT if getattr(options, n) is not None]
    if names:
        print(f"warning: no effect here: {' '.join(names)}", file=sys.stderr)
    given = options.bert_config_file
    read = find_source(options.init_checkpoint).config_file
    if not (given and read):
        return
    if not os.path.exists(given) or not filecmp.cmp(given, read, shallow=False):
        print(
            f"warning: --bert_config_file={given} is not read, but {read}, which is "
            "next to the checkpoint.",
            file=sys.stderr,
        )


def extract(arguments: list[str]) -> str:
    """Writes the vectors; returns a line about them.

    Raises:
      ValueError, OSError, RunError: if text or model cannot be read.
    """
    parser = Parser(prog="extract_features.py", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--input_file", required=True)
    add("--output_file", required=True)
    add("--init_checkpoint", required=True)
    add("--bert_config_file", help="not read: that next to the checkpoint is")
    add("--vocab_file", default="")
    add("--layers", type=_layers, default="-1,-2,-3,-4")
    add("--max_seq_length", type=int, default=128)
    add("--batch_size", type=int, default=32)
    add("--do_lower_case", type=parse_bool, nargs="?", const=True)
    for name in _WITHOUT_EFFECT:
        add(f"--{name}", nargs="?", const="true", help="no effect")
    options = parser.parse_args(arguments)
    for name in ("input_file", "output_file", "init_checkpoint", "vocab_file"):
        require_local(name, getattr(options, name))
    if not os.path.isfile(options.input_file):
        raise FileNotFoundError(
            "`input_file` must be a file. Received: input_file="
            f"{options.input_file}, which does not exist. Pass another path."
        )
    lines = read_lines(options.input_file)
    pairs = [tuple(part.strip() for part in line.split("|||", 1)) for line in lines]
    texts = [pair if len(pair) > 1 else pair[0] for pair in pairs]
    require_output_file("output_file", options.output_file)
    _warn_of_unused(options)
    given = {"vocab_file": options.vocab_file, "do_lower_case": options.do_lower_case}
    found = find_model(options.init_checkpoint, **given)
    found.require_layers(options.layers)
    found.require_length(options.max_seq_length)
    with loading_tensorflow():
        from bert_tf.features import FeatureExtractor

    extractor = FeatureExtractor(
        options.init_checkpoint,
        layers=options.layers,
        max_seq_length=options.max_seq_length,
        batch_size=options.batch_size,
        **given,
    )
    with (
        whole_file(options.output_file) as file,
        ProgressReport(len(texts), "texts") as report,
    ):
        for number, (tokens, vectors) in enumerate(extractor(texts)):
            features = [
                {
                    "token": token,
                    "layers": [
                        {"index": layer, "values": [round(float(x), 6) for x in row]}
                        for layer, row in zip(extractor.layers, rows, strict=True)
                    ],
                }
                for token, rows in zip(tokens, vectors.swapaxes(0, 1), strict=True)
            ]
            line = {"linex_index": number, "features": features}
            file.write(json.dumps(line).encode() + b"\n")
            report.add(1, 1)
    return f"{len(texts):,} texts: {options.output_file}"


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        print(extract(sys.argv[1:]))
    except (ValueError, OSError, RunError) as error:
        sys.exit(f"error: {error}")
