"""`python -m bert_tf data ...`: from downloads and text to records.

A command imports its work when it runs: TensorFlow takes seconds to load, and wrong
options should not wait for it.
"""

import json
from collections.abc import Sequence

from bert_tf.cli import pipeline
from bert_tf.cli.arguments import parse_config
from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig
from bert_tf.config.data import (
    CreateDataConfig,
    IndexDataConfig,
    PackDataConfig,
    ShowDataConfig,
)
from bert_tf.config.download import DownloadConfig, VerifyConfig
from bert_tf.config.paths import check_paths
from bert_tf.config.text import (
    CheckConfig,
    ExtractConfig,
    SentencesConfig,
    ShardConfig,
    VocabConfig,
)
from bert_tf.errors import counted, did_you_mean, shown
from bert_tf.launch import check_launch, report
from bert_tf.stages import loading_tensorflow

_PROG = "python -m bert_tf data"
_SHORT_OPTIONS = {"show": {"num_records": "-n"}}


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
        print(f"  {'all':10} Runs the commands that a TOML file lists")
        for subcommand, (config_class, _) in SUBCOMMANDS.items():
            # The first line of its docstring: "Splits ... (`python -m ...`)."
            print(f"  {subcommand:10} {config_class.__doc__.split(' (`')[0]}")
        return
    if name == "all":
        pipeline.run(arguments[1:], lambda command, words: main([command, *words]))
        return
    if name not in SUBCOMMANDS:
        names = ("all", *SUBCOMMANDS)
        raise ValueError(
            f"The subcommand of data must be one of {', '.join(names)}. Received: "
            f"{shown(name)}. {did_you_mean(name, names)}".rstrip()
        )
    config_class, run = SUBCOMMANDS[name]
    short_options = _SHORT_OPTIONS.get(name)
    config = parse_config(config_class, arguments[1:], f"{_PROG} {name}", short_options)
    check_paths(config)
    run(config)


def _download(config: DownloadConfig) -> None:
    from bert_tf.download import datasets

    if config.list:
        print(*datasets.names(), sep="\n")
        return
    for path in datasets.download(config):
        print(path)


def _verify(config: VerifyConfig) -> None:
    from bert_tf.download.checksums import unlisted_files, verify_folder

    files = counted(verify_folder(config), "file")
    print(f"{config.folder}: {files} with the listed checksums")
    extra = list(unlisted_files(config))
    if extra:
        print(f"not listed: {counted(len(extra), 'file')}, such as {extra[0]}")


def _extract(config: ExtractConfig) -> None:
    from bert_tf.data.commands.extract import extract_documents

    counts = extract_documents(config)
    print(
        f"{config.output_dir}: {counted(counts['documents'], 'document')}; skipped "
        f"{counts['empty']:,} without text, {counts['unparsable']:,} unparsable, and "
        f"{counted(counts['incomplete_sentences'], 'sentence')} with a formula, an "
        "address or an unknown template"
    )


def _check(config: CheckConfig) -> None:
    from bert_tf.data.commands.check import check_text, describe_text

    found = check_text(config)
    if config.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for line in describe_text(found):
        print(line)


def _sentences(config: SentencesConfig) -> None:
    from bert_tf.data.commands.sentences import make_sentences

    counts = make_sentences(config)
    print(
        f"{config.output_dir}: {counted(counts['documents'], 'document')} of "
        f"{counted(counts['sentences'], 'sentence')}"
    )
    if config.dedup:
        print(
            f"--dedup={config.dedup}: left out {counts['repeated']:,} repeating one of "
            "these"
        )


def _shard(config: ShardConfig) -> None:
    from bert_tf.data.commands.shard import shard_documents

    for side, counts in shard_documents(config).items():
        print(
            f"{config.output_dir}/{side}-*.txt: "
            f"{counted(counts['documents'], 'document')} of "
            f"{counted(counts['sentences'], 'sentence')}"
        )


def _vocab(config: VocabConfig) -> None:
    from bert_tf.data.commands.vocab import make_vocabulary

    counts = make_vocabulary(config)
    line = f"{config.output_dir}/vocab.txt: {counted(counts['tokens'], 'token')}"
    if counts["tokens"] < config.vocab_size:
        line += (
            f", fewer than --vocab_size={config.vocab_size}: no other pieces occur "
            f"--min_frequency={config.min_frequency} times or more"
        )
    print(line)


def _create(config: CreateDataConfig) -> None:
    from bert_tf.data.commands.create import create_records
    from bert_tf.data.pretraining.statistics import SUMMARY, describe_summary

    communicator = None
    check_launch(config.horovod)
    if config.horovod:
        with loading_tensorflow():
            from bert_tf.distribute import connect
        from bert_tf.jobs.run.agreement import agree

        communicator = connect(horovod=True)
        agree(communicator)
    metadata = create_records(config, communicator)
    if communicator is None or communicator.rank == 0:
        print(
            f"{config.output_dir}: "
            f"{counted(metadata.new_number_of_samples, 'record')} in "
            f"{counted(config.num_shards, 'shard')}, "
            f"{1 - metadata.packing_efficiency:.1%} padding"
        )
        summary, warnings = describe_summary(
            metadata.extra.get(SUMMARY), has_pairs=config.do_nsp
        )
        print(summary)
        for warning in warnings:
            report(warning)


def _pack(config: PackDataConfig) -> None:
    from bert_tf.data.commands.pack import pack_records

    metadata = pack_records(config)
    print(
        f"{config.output_dir}: "
        f"{counted(metadata.original_number_of_samples, 'sequence')} in "
        f"{counted(metadata.new_number_of_samples, 'record')}, "
        f"{metadata.avg_seq_per_sample:.3f} in each, "
        f"{1 - metadata.packing_efficiency:.1%} padding"
    )


def _convert(config: ConvertDataConfig) -> None:
    from bert_tf.data.commands.convert import convert_records

    metadata = convert_records(config)
    print(
        f"{config.output_dir}: "
        f"{counted(metadata.new_number_of_samples, 'record')} in "
        f"{counted(len(metadata.shards), 'file')} of {config.format}"
    )


def _chop(config: ChopDataConfig) -> None:
    from bert_tf.data.commands.convert import chop_records

    metadata = chop_records(config)
    print(
        f"{config.output_dir}: "
        f"{counted(metadata.new_number_of_samples, 'record')} in "
        f"{counted(len(metadata.shards), 'file')}"
    )


def _pick_eval(config: PickEvalConfig) -> None:
    from bert_tf.data.commands.convert import pick_records

    metadata = pick_records(config)
    print(f"{config.output_dir}: {counted(metadata.new_number_of_samples, 'record')}")


def _index(config: IndexDataConfig) -> None:
    from bert_tf.data.commands.index import index_records

    metadata = index_records(config)
    print(
        f"{config.input_dir}: "
        f"{counted(metadata.new_number_of_samples, 'record')} with "
        f"{counted(metadata.original_number_of_samples, 'sequence')}"
    )


def _show(config: ShowDataConfig) -> None:
    from bert_tf.data.commands.show import describe_records

    for description in describe_records(config):
        print(description)


# Name -> the class of its settings, each of which is an option, and what it does.
SUBCOMMANDS = {
    "download": (DownloadConfig, _download),
    "verify": (VerifyConfig, _verify),
    "extract": (ExtractConfig, _extract),
    "check": (CheckConfig, _check),
    "sentences": (SentencesConfig, _sentences),
    "shard": (ShardConfig, _shard),
    "vocab": (VocabConfig, _vocab),
    "create": (CreateDataConfig, _create),
    "pack": (PackDataConfig, _pack),
    "convert": (ConvertDataConfig, _convert),
    "chop": (ChopDataConfig, _chop),
    "pick_eval": (PickEvalConfig, _pick_eval),
    "index": (IndexDataConfig, _index),
    "show": (ShowDataConfig, _show),
}
