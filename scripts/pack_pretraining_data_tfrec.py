"""The command line of Habana's packer, for `python -m bert_tf data pack`.

The records have the widths that Habana's own model reads: P + 3 masked tokens and 3
sequences, where P is --max-predictions-per-sequence.
"""

import argparse
import os
import random
import sys

from bert_tf.cli.arguments import Parser
from bert_tf.config.data import PackDataConfig
from bert_tf.config.paths import require_local
from bert_tf.data.records.metadata import metadata_file
from bert_tf.data.records.record_index import record_files
from bert_tf.errors import RunError, counted

_SEED = 12345
# The widths of Habana's model; records with less are padded to them.
_SEQUENCES = 3
_MORE_PREDICTIONS = 3


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The options of the original script, with its defaults."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--input-glob", required=True, help="folder of unpacked records, or a pattern")
    add("--output-dir", required=True, help="folder for the packed records")
    add("--max-files", type=int, default=100, help="maximum, chosen at random")
    add("--max-sequence-length", type=int, default=512, help="that of the records")
    add(
        "--max-predictions-per-sequence",
        type=int,
        default=76,
        help="that of the records",
    )
    add("--max-sequences-per-pack", type=int, default=3, choices=(2, 3), help="2 or 3")
    add("--duplication-factor", type=int, help="no effect")
    add("--overwrite", action="store_true", help="replace earlier output (ours only)")
    return parser.parse_args(arguments)


def pack(options: argparse.Namespace) -> str:
    """Packs the records, and returns a line about them to print.

    Raises:
      ValueError, OSError, RunError: if the records have other lengths than the options,
        or cannot be packed; the message is for the user.
    """
    from bert_tf.data.commands.pack import pack_records
    from bert_tf.data.records.schema import record_shapes
    from bert_tf.data.records.tfrecord import TfrecordIndex

    require_local("input-glob", options.input_glob)
    require_local("output-dir", options.output_dir)
    if options.duplication_factor not in (None, 1):
        print("warning: no effect here: --duplication-factor", file=sys.stderr)
    files = record_files(options.input_glob)
    if len(files) > options.max_files:
        files = sorted(random.Random(_SEED).sample(files, options.max_files))
    shape = record_shapes(TfrecordIndex(files))[0]
    found = (shape.max_seq_length, shape.max_predictions)
    asked = (options.max_sequence_length, options.max_predictions_per_sequence)
    if found != asked:
        raise ValueError(
            "`max-sequence-length` and `max-predictions-per-sequence` must be those of "
            f"the records, {found[0]} and {found[1]}. Received: {asked[0]} and "
            f"{asked[1]}. Pass --max-sequence-length={found[0]} "
            f"--max-predictions-per-sequence={found[1]}."
        )
    config = PackDataConfig(
        input_dir=",".join(files),
        output_dir=options.output_dir,
        max_sequences_per_pack=options.max_sequences_per_pack,
        overwrite=options.overwrite,
    )
    widths = shape.max_predictions + _MORE_PREDICTIONS, _SEQUENCES
    metadata = pack_records(config, widths)
    return (
        f"{counted(metadata.original_number_of_samples, 'sequence')} of "
        f"{counted(len(files), 'file')} in "
        f"{counted(metadata.new_number_of_samples, 'record')}: {options.output_dir}, "
        f"described in {metadata_file(options.output_dir)}"
    )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        print(pack(parse_arguments(sys.argv[1:])))
    except (ValueError, OSError, RunError) as error:
        sys.exit(f"error: {error}")
