"""`python -m bert_tf vocab extend MODEL OUT`: a model with the words of a domain."""

import argparse
from collections.abc import Sequence

from bert_tf.cli.arguments import Parser, add_text_options, add_tokenizer_options
from bert_tf.config import checks
from bert_tf.config.paths import require_exists, require_file, require_local
from bert_tf.stages import loading_tensorflow

_PROG = "python -m bert_tf vocab"


def make_parser() -> Parser:
    """Makes the parser of the options."""
    parser = Parser(
        prog=_PROG,
        description="Adds the words of a text that a model's vocabulary splits into "
        "most pieces; each begins as the mean of its pieces. `data vocab` makes a "
        "vocabulary for a new model.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("task", choices=("extend",))
    add("model", help="weights with config and vocab.txt, as for `predict`")
    add("destination", help="a folder for transformers, from which trainings start too")
    add(
        "--input",
        required=True,
        help="text: comma-separated files or folders, as for `data extract`",
    )
    add_text_options(parser)
    add("--num_tokens", type=int, required=True, help="how many words to add")
    add(
        "--into_unused",
        action="store_true",
        help="put them in place of [unusedN]. Default: behind all other tokens",
    )
    add_tokenizer_options(parser)
    add("--num_processes", type=int, default=0, help="0: one per core")
    add("--overwrite", action="store_true", help="replace existing files")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Extends, and prints what was added and written.

    Args:
      arguments: The command line after `vocab`.

    Raises:
      ValueError, OSError, RunError: the message is for the user.
    """
    parser = make_parser()
    options: argparse.Namespace = parser.parse_args(arguments)
    checks.require_positive(options, "num_tokens")
    checks.require_not_negative(options, "num_processes")
    parser.warn_about_repeated()
    require_exists("model", options.model)
    require_local("destination", options.destination)
    require_local("input", options.input)
    if options.vocab_file:
        require_file("vocab_file", options.vocab_file)
    # TensorFlow takes seconds to load, and wrong options should not wait for it.
    with loading_tensorflow():
        from bert_tf.interop.vocabulary_extension import (
            ExtendOptions,
            extend_vocabulary,
        )

    values = vars(options)
    values.pop("task")
    source, destination = values.pop("model"), values.pop("destination")
    for line in extend_vocabulary(source, destination, ExtendOptions(**values)):
        print(line)
