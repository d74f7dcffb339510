"""`python -m bert_tf vocab extend MODEL OUT`: a model with the words of a domain."""

from collections.abc import Sequence

from bert_tf.cli.arguments import Parser, add_cased, add_options
from bert_tf.config.models import ExtendOptions
from bert_tf.config.paths import require_exists, require_file, require_local
from bert_tf.interop.vocabulary_extension import extend_vocabulary

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
    add_options(parser, ExtendOptions)
    add_cased(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Extends, and prints what was added and written.

    Args:
      arguments: The command line after `vocab`.

    Raises:
      ValueError, OSError, RunError: the message is for the user.
    """
    parser = make_parser()
    values = vars(parser.parse_args(arguments))
    del values["task"]
    source, destination = values.pop("model"), values.pop("destination")
    options = ExtendOptions(**values)
    parser.warn_about_repeated()
    require_exists("model", source)
    require_local("destination", destination)
    require_local("input", options.input)
    if options.vocab_file:
        require_file("vocab_file", options.vocab_file)
    for line in extend_vocabulary(source, destination, options):
        print(line)
