"""`python -m bert_tf data download | verify`: downloads and checks published files."""

from collections.abc import Sequence

from bert_tf.cli.arguments import parse_config
from bert_tf.config.download import DownloadConfig, VerifyConfig

_PROG = "python -m bert_tf data"


def download(arguments: Sequence[str]) -> None:
    """Downloads data sets and published weights."""
    config = parse_config(DownloadConfig, arguments, f"{_PROG} download")
    from bert_tf.download import datasets

    if config.list:
        print(*datasets.names(), sep="\n")
        return
    for path in datasets.download(config):
        print(path)


def verify(arguments: Sequence[str]) -> None:
    """Checks a folder against a list of checksums."""
    config = parse_config(VerifyConfig, arguments, f"{_PROG} verify")
    from bert_tf.download.checksums import unlisted_files, verify_folder

    print(f"{config.folder}: {verify_folder(config):,} files have the listed checksums")
    extra = list(unlisted_files(config))
    if extra:
        print(f"not listed: {len(extra):,} files, such as {extra[0]}")
