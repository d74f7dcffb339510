#!/usr/bin/env python
"""Makes records with the command line of google-research/bert and of Habana.

    python scripts/create_pretraining_data.py --input_file=text.txt \
        --output_file=a.tfrecord,b.tfrecord --vocab_file=vocab.txt

Text has one sentence per line and a blank line between documents. Several output files
share the records; <file>_metadata.json next to each states the vocabulary. `python -m
bert_tf data create` does the same into a folder, and resumes after a stop.
"""

import dataclasses
import errno
import os
import shutil
import sys
from pathlib import Path

from bert_tf.cli.arguments import Parser, parse_bool
from bert_tf.config.data import CreateDataConfig
from bert_tf.config.paths import require_local
from bert_tf.data.commands.create import create_records
from bert_tf.data.records.metadata import Metadata, metadata_file, write_metadata
from bert_tf.errors import RunError, counted
from bert_tf.files import temporary_folder, whole_file


def create(arguments: list[str]) -> str:
    """Makes the records; returns a line about them.

    Raises:
      ValueError, OSError, RunError: if the text cannot be used.
    """
    parser = Parser(
        prog="create_pretraining_data.py", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--input_file", required=True, help="text files, separated by commas")
    add("--output_file", required=True, help="record files, separated by commas")
    add("--vocab_file", required=True)
    boolean = {"type": parse_bool, "nargs": "?", "const": True}
    add("--do_lower_case", **boolean, help="default: true for an uncased vocabulary")
    add("--do_whole_word_mask", **boolean, default=False)
    add("--max_seq_length", type=int, default=128)
    add("--max_predictions_per_seq", type=int, default=20)
    add("--random_seed", type=int, default=12345)
    add("--dupe_factor", type=int, default=10)
    add("--masked_lm_prob", type=float, default=0.15)
    add("--short_seq_prob", type=float, default=0.1)
    options = vars(parser.parse_args(arguments))
    for name in ("input_file", "output_file", "vocab_file"):
        require_local(name, options[name])
    outputs = [Path(name) for name in options.pop("output_file").split(",") if name]
    if len(set(outputs)) != len(outputs) or not outputs:
        raise ValueError(
            "`output_file` must be different files, separated by commas. Received: "
            f"{', '.join(map(str, outputs)) or 'none'}."
        )
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(outputs[0]) as folder:
        metadata = create_records(
            CreateDataConfig(
                input=options.pop("input_file"),
                seed=options.pop("random_seed"),
                output_dir=str(folder / "records"),
                num_shards=len(outputs),
                **options,
            )
        )
        shards = sorted((folder / "records").glob("part-*"))
        for shard, output in zip(shards, outputs, strict=True):
            _publish(shard, output, metadata)
    records = counted(metadata.original_number_of_samples, "record")
    return f"{records} in {', '.join(map(str, outputs))}"


def _publish(shard: Path, output: Path, metadata: Metadata) -> None:
    """Moves a file of the records to its path, and writes metadata of it alone."""
    [about] = [one for one in metadata.shards if one.name == shard.name]
    # Earlier metadata must never be next to new records.
    Path(metadata_file(output)).unlink(missing_ok=True)
    _move(shard, output)
    settings = {x: y for x, y in metadata.config.items() if x != "output_dir"}
    is_all = len(metadata.shards) == 1
    write_metadata(
        output,
        dataclasses.replace(
            metadata,
            shards=(dataclasses.replace(about, name=output.name),),
            original_number_of_samples=about.records,
            new_number_of_samples=about.records,
            # Only the tokens of all files together are known.
            packing_efficiency=metadata.packing_efficiency if is_all else None,
            padding_tokens_original_dataset=(
                metadata.padding_tokens_original_dataset if is_all else None
            ),
            config=settings,
        ),
    )


def _move(source: Path, target: Path) -> None:
    """Moves a file; outputs may be on several disks."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with open(source, "rb") as content, whole_file(target) as file:
            shutil.copyfileobj(content, file)


if __name__ == "__main__":
    try:
        print(create(sys.argv[1:]))
    except (ValueError, OSError, RunError) as error:
        sys.exit(f"error: {error}")
