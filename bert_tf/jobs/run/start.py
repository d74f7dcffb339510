"""A run's start with its architecture and tokenizer, which need no TensorFlow."""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

from bert_tf.config import BertConfig, PretrainingConfig, checks
from bert_tf.config.finetuning import ClassifierConfig, FinetuningConfig, SquadConfig
from bert_tf.data.records.metadata import (
    Metadata,
    check_lengths,
    described_path,
    most_predictions,
    read_metadata,
)
from bert_tf.data.records.record_index import record_sets
from bert_tf.data.text.vocabulary import check_size
from bert_tf.interop.classifier_labels import CLASSIFY
from bert_tf.interop.sentence_files import EMBED
from bert_tf.interop.weight_files import find_source
from bert_tf.interop.weights import read_config
from bert_tf.jobs.run.fingerprint import check_architecture
from bert_tf.jobs.run.model_files import (
    RunTokenizer,
    compare_config,
    finetuning_tokenizer,
    fit_preset,
    load_bert_config,
    pretraining_tokenizer,
)
from bert_tf.jobs.run.output_dir import (
    PRETRAINING,
    FolderTask,
    require_same_task,
    squad_task,
)
from bert_tf.jobs.run.starting_point import StartingPoint, find_starting_point


class PretrainingStart(NamedTuple):
    """What a pre-training starts from.

    Attributes:
      point: The starting point.
      bert: The architecture.
      tokenizer: That of the records, as far as it is known.
      stated: Folder -> metadata, of the records that are read.
      notes: A line for the log, if the size of a preset is replaced.
    """

    point: StartingPoint
    bert: BertConfig
    tokenizer: RunTokenizer
    stated: dict[str, Metadata | None]
    notes: list[str]


def find_pretraining_start(
    config: PretrainingConfig, local_rank: int = 0
) -> PretrainingStart:
    """What a pre-training starts from, checked before any records are read.

    Args:
      config: The settings.
      local_rank: See `find_starting_point`.

    Raises:
      FileNotFoundError, ValueError, RunError: see `find_starting_point`,
        `require_same_task`, `load_bert_config`, `record_sets`, `read_metadata`,
        `check_architecture` and `pretraining_tokenizer`.
    """
    start = find_starting_point(config, local_rank=local_rank)
    require_same_task(config, start, FolderTask(PRETRAINING))
    bert = load_bert_config(config.files, start)
    stated = _stated_metadata(config, start)
    bert, sized = fit_preset(bert, config.files, start, stated)
    check_architecture(start, bert, config.training.allow_config_change)
    _check_initial_config(start, bert)
    # Ids of another vocabulary may be out of range.
    tokenizer = pretraining_tokenizer(config, start, bert, stated)
    return PretrainingStart(start, bert, tokenizer, stated, sized)


def _stated_metadata(
    config: PretrainingConfig, start: StartingPoint
) -> dict[str, Metadata | None]:
    """Folder -> metadata, of the records that are read; its lengths are compared."""
    settings = [config.files.input_files_dir] * takes_steps(config, start)
    settings += [config.files.eval_files_dir] * config.training.evaluates
    batch, stated = config.batch, {}
    for setting in settings:
        sets = record_sets(setting, may_have_weights=True)
        folders = {described_path(path) for one in sets for path in one.files}
        found = {folder: read_metadata(folder) for folder in sorted(folders)}
        # HDF5 may be padded.
        known = {n: x for n, x in found.items() if x and x.format == "tfrecord"}
        lengths = _stated_lengths(known.values())
        given = {name: getattr(batch, name) for name in lengths}
        stated_by = {name: _lengths_of(about) for name, about in known.items()}
        for name, about in known.items():
            if about.packed:  # Their P is known to metadata alone: no command finds it.
                stated_by[name]["max_predictions_per_seq"] = None
        check_lengths(setting, lengths, given, stated_by=stated_by)
        stated |= found
    return stated


def _stated_lengths(known: Collection[Metadata]) -> dict[str, int | None]:
    """S, and P of a single sequence; None if unknown, or not the same in all metadata.

    Packed records may have different P. Whether records of other different lengths can
    be mixed is decided when they are opened.
    """
    lengths = {}
    for name in ("max_seq_length", "max_predictions_per_seq"):
        values = {_lengths_of(about)[name] for about in known}
        lengths[name] = min(values) if len(values) == 1 else None
    if known and all(about.packed for about in known):
        lengths["max_predictions_per_seq"] = most_predictions(known)
    return lengths


def _lengths_of(about: Metadata) -> dict[str, int | None]:
    """S, and P of a single sequence, as metadata state them."""
    is_packed, predictions = about.packed, about.max_predictions_per_seq
    return {
        "max_seq_length": about.max_seq_length,
        "max_predictions_per_seq": (
            predictions if is_packed else about.max_predictions_per_pack
        ),
    }


def _check_initial_config(start: StartingPoint, bert: BertConfig) -> None:
    """Refuses initial weights of another architecture, before they are read."""
    if start.prefix and not start.takes_state:
        source = find_source(start.prefix)
        compare_config(read_config(source), bert, source.config_file)


def takes_steps(config: PretrainingConfig, start: StartingPoint) -> bool:
    """Whether there are steps left to train."""
    steps = start.position.step if start.position else 0
    return config.training.do_train and steps < config.optimizer.num_train_steps


def _task_of(config: FinetuningConfig) -> FolderTask:
    """The task of a fine-tuning."""
    if isinstance(config, SquadConfig):
        return squad_task(config.squad.version_2_with_negative)
    if isinstance(config, ClassifierConfig):
        return FolderTask(CLASSIFY, config.task.task_name)
    return FolderTask(EMBED)


def find_finetuning_start(
    config: FinetuningConfig, local_rank: int = 0
) -> tuple[StartingPoint, BertConfig, RunTokenizer]:
    """The starting point, the architecture and the tokenizer.

    All are checked before any data are read.

    Args:
      config: The settings.
      local_rank: See `find_starting_point`.

    Raises:
      FileNotFoundError, ValueError, RunError: see `find_starting_point`,
        `require_same_task`, `load_bert_config`, `check_architecture` and
        `finetuning_tokenizer`; or if rows are longer than the table of positions, or
        the vocabulary is larger than that of words.
    """
    start = find_starting_point(config, own_first=True, local_rank=local_rank)
    require_same_task(config, start, _task_of(config))
    bert = load_bert_config(config.files, start)
    bert, sized = fit_preset(bert, config.files, start, {})
    check_architecture(start, bert, config.training.allow_config_change)
    _check_initial_config(start, bert)
    tokenizer = finetuning_tokenizer(config, start)
    notes = sized + check_size(tokenizer.vocab_file, bert.vocab_size)
    if config.max_seq_length > bert.max_position_embeddings:
        raise ValueError(
            "`max_seq_length` must be at most the architecture's "
            f"max_position_embeddings={bert.max_position_embeddings}. Received: "
            f"max_seq_length={config.max_seq_length}."
        )
    frozen = config.optimizer.frozen_layers or 0
    checks.require(
        frozen <= bert.num_hidden_layers,
        "frozen_layers",
        f"be at most {bert.num_hidden_layers}, the architecture's layers",
        frozen,
    )
    tokenizer = dataclasses.replace(tokenizer, notes=[*tokenizer.notes, *notes])
    return start, bert, tokenizer
