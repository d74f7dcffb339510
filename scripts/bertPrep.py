#!/usr/bin/env python
"""NVIDIA's and Habana's bertPrep.py: from a download to records, action by action.

    BERT_PREP_WORKING_DIR=/data python scripts/bertPrep.py --action download \
        --dataset wikicorpus_en

Actions: download, text_formatting, sharding, create_tfrecord_files, create_hdf5_files.
Files lie below BERT_PREP_WORKING_DIR in the original folders. Each action prints and
runs commands of `python -m bert_tf data`, which resume after a stop. BookCorpus cannot
be downloaded any more: put text files into download/bookscorpus.
"""

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from bert_tf.cli import main
from bert_tf.cli.arguments import Parser, parse_bool

ENGLISH, CHINESE = "wikicorpus_en", "wikicorpus_zh"
BOOKS, WEIGHTS = "bookscorpus", "google_pretrained_weights"
_LANGUAGES = {ENGLISH: "en", CHINESE: "zh"}
# The text of several sets together.
_PARTS = {"books_wiki_en_corpus": (BOOKS, ENGLISH)}
_WEIGHTS = "uncased_L-24_H-1024_A-16"
_DATASETS = (BOOKS, ENGLISH, CHINESE, *_PARTS, WEIGHTS, "all")
_ACTIONS = (
    *("download", "text_formatting", "sharding"),
    *("create_tfrecord_files", "create_hdf5_files"),
)


def commands(arguments: list[str], folder: Path) -> list[list[str]]:
    """What `python -m bert_tf` is called with, in order.

    Args:
      arguments: The original options.
      folder: BERT_PREP_WORKING_DIR.

    Raises:
      ValueError: if an option is unknown, or something cannot be downloaded.
    """
    parser = Parser(prog="bertPrep.py", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--action", required=True, choices=_ACTIONS)
    add("--dataset", required=True, choices=_DATASETS)
    add("--input_files", help="text, instead of the folder of the action before")
    add("--n_training_shards", type=int, default=1472)
    add("--n_test_shards", type=int, default=1472)
    add("--fraction_test_set", type=float, default=0.1)
    add("--segmentation_method", choices=("nltk",), help="sentences: our own rules")
    add("--n_processes", type=int, default=0, help="default: one per core")
    add("--random_seed", type=int, default=12345)
    add("--dupe_factor", type=int, default=5)
    add("--masked_lm_prob", type=float, default=0.15)
    add("--max_seq_length", type=int, default=512)
    add("--max_predictions_per_seq", type=int, default=20)
    add("--do_lower_case", type=parse_bool, default=True)
    add("--vocab_file", help=f"default: that of {_WEIGHTS}")
    add("--skip_wikiextractor", type=int, choices=(0, 1), default=0)
    options = parser.parse_args(arguments)
    if options.skip_wikiextractor:
        print(
            "--skip_wikiextractor has no effect: WikiExtractor is not used here. "
            "`python -m bert_tf data extract` reads dumps, and with "
            "--input_format=json what WikiExtractor has made with --json.",
            file=sys.stderr,
        )
    datasets = [options.dataset]
    if options.dataset == "all":
        datasets = [ENGLISH, CHINESE, WEIGHTS]
    if options.action == "download":
        return [_download(name, folder) for name in datasets]
    if options.action == "text_formatting":
        parts = [part for name in datasets for part in _PARTS.get(name, (name,))]
        parts = [part for part in parts if part != WEIGHTS]
        return [_format(part, folder, options) for part in parts]
    make = _shard if options.action == "sharding" else _records
    texts = [name for name in datasets if name != WEIGHTS]
    return [words for name in texts for words in make(name, folder, options)]


def _download(dataset: str, folder: Path) -> list[str]:
    if dataset in (BOOKS, *_PARTS):
        raise ValueError(
            "BookCorpus is not offered by its authors any more, and cannot be "
            f"downloaded. Received: --dataset={dataset}. Download {ENGLISH}, put text "
            f"files of books into {folder}/download/{BOOKS}, and go on with --action="
            "text_formatting."
        )
    if dataset == WEIGHTS:
        target = folder / "download" / WEIGHTS
        return ["data", "download", f"--name={_WEIGHTS}", f"--output_dir={target}"]
    target = folder / "download" / dataset
    language = f"--language={_LANGUAGES[dataset]}"
    return ["data", "download", "--name=wikipedia", language, f"--output_dir={target}"]


def _format(dataset: str, folder: Path, options: Namespace) -> list[str]:
    source = options.input_files or folder / "download" / dataset
    target = folder / "formatted_one_article_per_line" / dataset
    return [
        *("data", "extract", f"--input={source}", f"--output_dir={target}"),
        f"--num_processes={options.n_processes}",
    ]


def _shard(dataset: str, folder: Path, options: Namespace) -> list[list[str]]:
    parts = _PARTS.get(dataset, (dataset,))
    formatted = folder / "formatted_one_article_per_line"
    source = options.input_files or ",".join(str(formatted / part) for part in parts)
    sentences = folder / "sentences" / dataset
    processes = f"--num_processes={options.n_processes}"
    return [
        [
            *("data", "sentences", f"--input={source}", f"--output_dir={sentences}"),
            processes,
        ],
        [
            *("data", "shard", f"--input={sentences}"),
            f"--output_dir={folder / 'sharded' / dataset}",
            f"--n_training_shards={options.n_training_shards}",
            f"--n_test_shards={options.n_test_shards}",
            f"--fraction_test_set={options.fraction_test_set}",
            f"--seed={options.random_seed}",
            processes,
        ],
    ]


def _records(dataset: str, folder: Path, options: Namespace) -> list[list[str]]:
    form = "hdf5" if options.action == "create_hdf5_files" else "tfrecord"
    vocab_file = options.vocab_file or (
        folder / "download" / WEIGHTS / "2018_10_18" / _WEIGHTS / "vocab.txt"
    )
    source = options.input_files or folder / "sharded" / dataset
    target = folder / form / f"seq_len_{options.max_seq_length}" / dataset
    shards = {"training": options.n_training_shards, "test": options.n_test_shards}
    return [
        [
            *("data", "create", f"--format={form}", f"--output_dir={target / side}"),
            f"--input={source}/{side}-*.txt",
            f"--vocab_file={vocab_file}",
            f"--do_lower_case={options.do_lower_case}",
            f"--max_seq_length={options.max_seq_length}",
            f"--max_predictions_per_seq={options.max_predictions_per_seq}",
            f"--masked_lm_prob={options.masked_lm_prob}",
            f"--dupe_factor={options.dupe_factor}",
            f"--seed={options.random_seed}",
            f"--num_shards={num_shards}",
            f"--num_processes={options.n_processes}",
        ]
        for side, num_shards in shards.items()
    ]


def run(arguments: list[str]) -> int:
    """Runs an action; returns the exit code of the command that failed, or 0."""
    try:
        # First, since it also prints the help.
        found = commands(arguments, Path(os.environ.get("BERT_PREP_WORKING_DIR", "")))
        if "BERT_PREP_WORKING_DIR" not in os.environ:
            raise ValueError(
                "BERT_PREP_WORKING_DIR must be set: the folder of all files. For "
                "example: export BERT_PREP_WORKING_DIR=/data/bert"
            )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for words in found:
        print(shlex.join(["python", "-m", "bert_tf", *words]), flush=True)
        if code := main(words):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
