"""`python -m bert_tf data convert | chop | pick_eval`: rewrites records."""

from collections.abc import Sequence

from bert_tf.cli.arguments import parse_config
from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig

_PROG = "python -m bert_tf data"


def convert(arguments: Sequence[str]) -> None:
    """Converts HDF5 to TFRecord and back."""
    config = parse_config(ConvertDataConfig, arguments, f"{_PROG} convert")
    from bert_tf.data.commands.convert import convert_records

    metadata = convert_records(config)
    print(
        f"{config.output_dir}: {metadata.new_number_of_samples:,} records in "
        f"{len(metadata.shards):,} files of {config.format}"
    )


def chop(arguments: Sequence[str]) -> None:
    """Divides records into another number of shards."""
    config = parse_config(ChopDataConfig, arguments, f"{_PROG} chop")
    from bert_tf.data.commands.convert import chop_records

    metadata = chop_records(config)
    print(
        f"{config.output_dir}: {metadata.new_number_of_samples:,} records in "
        f"{len(metadata.shards):,} files"
    )


def pick_eval(arguments: Sequence[str]) -> None:
    """Selects evenly spaced records."""
    config = parse_config(PickEvalConfig, arguments, f"{_PROG} pick_eval")
    from bert_tf.data.commands.convert import pick_records

    metadata = pick_records(config)
    print(f"{config.output_dir}: {metadata.new_number_of_samples:,} records")
