"""`python -m bert_tf data ...`: from text to records."""

from collections.abc import Sequence

from bert_tf.cli import conversion, download, pipeline, text
from bert_tf.cli.arguments import parse_config
from bert_tf.config.data import (
    CreateDataConfig,
    IndexDataConfig,
    PackDataConfig,
    ShowDataConfig,
)
from bert_tf.launch import check_launch, report

_PROG = "python -m bert_tf data"


def main(arguments: Sequence[str]) -> None:
    """Runs a subcommand.

    Args:
      arguments: Its name and its options.

    Raises:
      ValueError, OSError, RunError: the message is for the user.
    """
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(f"usage: {_PROG} SUBCOMMAND ...\n")
        for subcommand, (_, description) in SUBCOMMANDS.items():
            print(f"  {subcommand:10} {description}")
        return
    if name not in SUBCOMMANDS:
        raise ValueError(
            f"The subcommand of data must be one of {', '.join(SUBCOMMANDS)}. "
            f"Received: {name}."
        )
    SUBCOMMANDS[name][0](arguments[1:])


def create(arguments: Sequence[str]) -> None:
    """Makes records from text."""
    config = parse_config(CreateDataConfig, arguments, f"{_PROG} create")
    from bert_tf.data.commands.create import create_records
    from bert_tf.data.commands.summary import describe

    communicator = None
    check_launch(config.horovod)
    if config.horovod:
        from bert_tf.distribute import connect
        from bert_tf.jobs.run.agreement import agree

        communicator = connect(horovod=True)
        agree(communicator)
    metadata = create_records(config, communicator)
    if communicator is None or communicator.rank == 0:
        print(
            f"{config.output_dir}: {metadata.new_number_of_samples:,} records in "
            f"{config.num_shards} shards, {1 - metadata.packing_efficiency:.1%} padding"
        )
        summary, warnings = describe(metadata)
        print(summary)
        for warning in warnings:
            report(warning)


def pack(arguments: Sequence[str]) -> None:
    """Packs several short sequences into each record."""
    config = parse_config(PackDataConfig, arguments, f"{_PROG} pack")
    from bert_tf.data.commands.pack import pack_records

    metadata = pack_records(config)
    print(
        f"{config.output_dir}: {metadata.original_number_of_samples:,} sequences in "
        f"{metadata.new_number_of_samples:,} records, "
        f"{metadata.avg_seq_per_sample:.3f} in each, "
        f"{1 - metadata.packing_efficiency:.1%} padding"
    )


def index(arguments: Sequence[str]) -> None:
    """Counts records and writes their metadata."""
    config = parse_config(IndexDataConfig, arguments, f"{_PROG} index")
    from bert_tf.data.commands.index import index_records

    metadata = index_records(config)
    print(
        f"{config.input_dir}: {metadata.new_number_of_samples:,} records with "
        f"{metadata.original_number_of_samples:,} sequences"
    )


def show(arguments: Sequence[str]) -> None:
    """Prints records as text."""
    config = parse_config(
        ShowDataConfig, arguments, f"{_PROG} show", {"num_records": "-n"}
    )
    # TensorFlow takes seconds to load, and wrong options should not wait for it.
    from bert_tf.data.commands.show import describe_records

    for description in describe_records(config):
        print(description)


def run_all(arguments: Sequence[str]) -> None:
    """Runs all commands that a TOML file lists."""
    pipeline.run(arguments, {name: run for name, (run, _) in SUBCOMMANDS.items()})


SUBCOMMANDS = {
    "all": (run_all, "run the commands that a TOML file lists, from text to records"),
    "download": (download.download, "download data sets and published weights"),
    "verify": (download.verify, "check a folder against a list of checksums"),
    "extract": (text.extract, "extract documents from dumps, JSON and text files"),
    "sentences": (text.sentences, "split documents into sentences"),
    "shard": (text.shard, "divide documents into training and test shards"),
    "vocab": (text.vocab, "train a WordPiece vocabulary"),
    "create": (create, "make records from text"),
    "pack": (pack, "pack several short sequences into each record"),
    "convert": (conversion.convert, "convert HDF5 to TFRecord and back"),
    "chop": (conversion.chop, "divide records into another number of shards"),
    "pick_eval": (conversion.pick_eval, "select evenly spaced records, to evaluate"),
    "index": (index, "count records and write their metadata"),
    "show": (show, "print records as text"),
}
