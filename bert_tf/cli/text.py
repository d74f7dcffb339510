"""`python -m bert_tf data ...`: from raw text to shards of sentences."""

from collections.abc import Sequence

from bert_tf.cli.arguments import parse_config
from bert_tf.config.text import ExtractConfig, SentencesConfig, ShardConfig, VocabConfig

_PROG = "python -m bert_tf data"


def extract(arguments: Sequence[str]) -> None:
    """Extracts documents from dumps, JSON and text files."""
    config = parse_config(ExtractConfig, arguments, f"{_PROG} extract")
    from bert_tf.data.commands.extract import extract_documents

    counts = extract_documents(config)
    print(
        f"{config.output_dir}: {counts['documents']:,} documents; skipped "
        f"{counts['empty']:,} without text, {counts['unparsable']:,} unparsable ones, "
        f"and {counts['incomplete_sentences']:,} sentences with a formula, an address "
        "or an unknown template"
    )


def sentences(arguments: Sequence[str]) -> None:
    """Splits documents into sentences."""
    config = parse_config(SentencesConfig, arguments, f"{_PROG} sentences")
    from bert_tf.data.commands.sentences import make_sentences

    counts = make_sentences(config)
    print(
        f"{config.output_dir}: {counts['documents']:,} documents of "
        f"{counts['sentences']:,} sentences"
    )


def shard(arguments: Sequence[str]) -> None:
    """Divides documents into training and test shards."""
    config = parse_config(ShardConfig, arguments, f"{_PROG} shard")
    from bert_tf.data.commands.shard import shard_documents

    for side, counts in shard_documents(config).items():
        print(
            f"{config.output_dir}/{side}-*.txt: {counts['documents']:,} documents of "
            f"{counts['sentences']:,} sentences"
        )


def vocab(arguments: Sequence[str]) -> None:
    """Trains a WordPiece vocabulary."""
    config = parse_config(VocabConfig, arguments, f"{_PROG} vocab")
    from bert_tf.data.commands.vocab import make_vocabulary

    counts = make_vocabulary(config)
    print(f"{config.output_dir}/vocab.txt: {counts['tokens']:,} tokens")
