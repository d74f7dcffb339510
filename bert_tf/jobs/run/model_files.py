"""The files of a run's model: its architecture, its vocabulary and its tokenizer."""

import dataclasses
import os
from collections.abc import Iterable, Mapping

from bert_tf.config import PRESETS, BertConfig, PretrainingConfig
from bert_tf.config.finetuning import FinetuningConfig
from bert_tf.config.run import RunConfig, RunFilesConfig
from bert_tf.data.records.metadata import Metadata, metadata_file
from bert_tf.data.records.provenance import (
    check_vocabularies,
    check_vocabulary,
    common_case,
)
from bert_tf.data.text.tokenization import TokenizerSettings, WordPieceTokenizer
from bert_tf.data.text.tokenizer_settings import choose_settings
from bert_tf.data.text.vocabulary import (
    check_same_words,
    check_size,
    load_vocabulary,
    vocabulary_sha256,
)
from bert_tf.interop.weight_files import (
    NO_VOCABULARY,
    ORIGINAL_CONFIG,
    VOCABULARY,
    Source,
    find_source,
    folder_of,
)
from bert_tf.interop.weights import read_config
from bert_tf.jobs.run.starting_point import StartingPoint

_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def load_bert_config(files: RunFilesConfig, start: StartingPoint) -> BertConfig:
    """The architecture of the flags, or else of the weights.

    A resumed run has its own: its init_checkpoint may be gone.

    Args:
      files: The settings.
      start: Where the run starts.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a value is out of range, or there is no architecture.
    """
    if files.preset:
        return PRESETS[files.preset]
    if files.bert_config_file:
        return BertConfig.from_json_file(files.bert_config_file)
    if start.is_own and (own := _own_architecture(files, start)):
        return own[0]
    if files.init_checkpoint:
        if (found := read_config(find_source(files.init_checkpoint))) is not None:
            return found
    if own := _own_architecture(files, start):
        return own[0]
    raise ValueError(
        "`bert_config_file` or `preset` must be given: there is no config next to "
        "`init_checkpoint` or in `output_dir`. Received: init_checkpoint="
        f"{files.init_checkpoint!r}, output_dir={files.output_dir!r}. Pass "
        "--bert_config_file."
    )


def _own_architecture(
    files: RunFilesConfig, start: StartingPoint
) -> tuple[BertConfig, str] | None:
    """The architecture of output_dir, and what states it; None if nothing does."""
    path = os.path.join(files.output_dir, ORIGINAL_CONFIG)
    if os.path.isfile(path):
        return BertConfig.from_json_file(path), path
    if start.is_own and start.position and "bert" in start.position.config:
        values = start.position.config["bert"]
        return BertConfig.from_dict(values, start.prefix), start.prefix
    return None


def compare_config(
    beside: BertConfig | None, bert: BertConfig, config_file: str
) -> list[str]:
    """Compares what shapes do not show with the config next to the initial weights.

    Args:
      beside: That config, if there is one.
      bert: The architecture of the model.
      config_file: The file of `beside`.

    Returns:
      A line for each difference that may be intended.

    Raises:
      ValueError: if the heads differ: the weights would mean something else.
    """
    if beside is None:
        return []
    if beside.num_attention_heads != bert.num_attention_heads:
        raise ValueError(
            f"{config_file}, next to the initial weights, has num_attention_heads="
            f"{beside.num_attention_heads}. Received: num_attention_heads="
            f"{bert.num_attention_heads}. Drop --bert_config_file and --preset to use "
            "that file; correct it if it is wrong."
        )
    return [
        f"{'warning: ' * (name not in _DROPOUTS)}{name}={getattr(bert, name)} is used; "
        f"{config_file} next to the initial weights has {getattr(beside, name)}."
        for name in ("hidden_act", "layer_norm_eps", *_DROPOUTS)
        if _usual(getattr(beside, name)) != _usual(getattr(bert, name))
    ]


def _usual(value: object) -> object:
    """One name for each activation that has several."""
    return "gelu_tanh" if value in ("gelu_new", "gelu_pytorch_tanh") else value


def fit_preset(
    bert: BertConfig,
    files: RunFilesConfig,
    start: StartingPoint,
    records: Mapping[str, Metadata | None],
) -> tuple[BertConfig, list[str]]:
    """The architecture of a preset, for the vocabulary that the run has.

    Args:
      bert: The result of `load_bert_config`.
      files: The settings.
      start: Where the run starts.
      records: Folder -> metadata, of the records of a pre-training.

    Returns:
      The architecture, and a line for the log if the preset's size is replaced.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`; or if records were made with
        another vocabulary than `vocab_file`.
    """
    if not files.preset:
        return bert, []
    if files.vocab_file:
        known = {folder: about for folder, about in records.items() if about}
        check_vocabulary(files.vocab_file, known)
    size, source = _known_vocab_size(files, start, records) or (bert.vocab_size, "")
    if size == bert.vocab_size:
        return bert, []
    note = (
        f"--preset={files.preset}: vocab_size={size} instead of {bert.vocab_size}, "
        f"from {source}."
    )
    return dataclasses.replace(bert, vocab_size=size), [note]


def _known_vocab_size(
    files: RunFilesConfig,
    start: StartingPoint,
    records: Mapping[str, Metadata | None],
) -> tuple[int, str] | None:
    """Rows of the word table that a run has or needs, and what says so.

    Tables of weights come first: they may have more rows than their vocabulary.
    """
    if start.is_own and (own := _own_architecture(files, start)):
        return own[0].vocab_size, own[1]
    source = _initial_weights(files, start)
    beside = read_config(source) if source else None
    if beside is not None:
        return beside.vocab_size, source.config_file
    vocab_file = files.vocab_file or (source.vocab_file if source else "")
    if vocab_file:
        return len(load_vocabulary(vocab_file)), vocab_file
    for folder, about in records.items():
        if about and about.vocab_size:
            return about.vocab_size, metadata_file(folder)
    return None


@dataclasses.dataclass(frozen=True)
class RunTokenizer:
    """The tokenizer of a run.

    Attributes:
      vocab_file: The vocabulary; empty if a pre-training has none.
      settings: Case and accents; None if a pre-training does not know them.
      notes: Lines for the log.
    """

    vocab_file: str
    settings: TokenizerSettings | None
    notes: list[str]

    def load(self) -> WordPieceTokenizer:
        """Reads the vocabulary."""
        return WordPieceTokenizer(self.vocab_file, self.settings)


def finetuning_tokenizer(
    config: FinetuningConfig, start: StartingPoint
) -> RunTokenizer:
    """The tokenizer of a fine-tuning, or of its evaluation.

    Args:
      config: The settings.
      start: Where the run starts.

    Raises:
      FileNotFoundError: if there is no vocabulary.
      ValueError: if a file cannot be used, or `--vocab_file` is not the vocabulary of
        the weights.
    """
    files = config.files
    source = _initial_weights(files, start)
    of_weights = _vocabulary_of_weights(files, start, source)
    vocab_file = files.vocab_file or of_weights or _in_output_dir(files)
    if not vocab_file:
        raise FileNotFoundError(
            f"`vocab_file` must be given: there is {NO_VOCABULARY} next to "
            "`init_checkpoint` or in `output_dir`. Received: init_checkpoint="
            f"{files.init_checkpoint!r}, output_dir={files.output_dir!r}. Pass "
            "--vocab_file."
        )
    notes = _compare_words(config, start, vocab_file, of_weights)
    choice = choose_settings(
        {"do_lower_case": files.do_lower_case},
        _folders(files, start, source, vocab_file),
        vocab_file,
    )
    return RunTokenizer(vocab_file, choice.settings, [*choice.notes, *notes])


def _compare_words(
    config: RunConfig,
    start: StartingPoint,
    vocab_file: str,
    of_weights: str,
    *,
    has_records: bool = False,
) -> list[str]:
    """Compares a vocabulary with that of the weights, unless it may change."""
    if start.is_own and "vocabulary" in config.training.allow_config_change:
        return []
    if not of_weights:
        return []
    return check_same_words(vocab_file, of_weights, has_records=has_records)


def pretraining_tokenizer(
    config: PretrainingConfig,
    start: StartingPoint,
    bert: BertConfig,
    records: Mapping[str, Metadata | None],
) -> RunTokenizer:
    """The tokenizer that records were made with, as far as it is known.

    Args:
      config: The settings.
      start: Where the run starts.
      bert: The architecture.
      records: Folder -> metadata, of all records that are read.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if vocabulary, case or accents of records, model and flags differ.
    """
    files = config.files
    source = _initial_weights(files, start)
    of_weights = _vocabulary_of_weights(files, start, source)
    known = {folder: about for folder, about in records.items() if about}
    vocab_file = files.vocab_file or of_weights or _in_output_dir(files)
    notes = []
    if vocab_file:
        check_vocabulary(vocab_file, known)
        notes += _compare_words(
            config, start, vocab_file, of_weights, has_records=bool(records)
        )
        notes += check_size(vocab_file, bert.vocab_size)
    else:
        check_vocabularies(known)
        vocab_file = _vocabulary_of_records(known.values())
        if vocab_file:
            notes += check_size(vocab_file, bert.vocab_size)
            notes.append(f"Vocabulary: {vocab_file}, from the metadata of the records.")
    silent = [
        folder or "."
        for folder, about in records.items()
        if about is None or about.vocab_sha256 is None
    ]
    if silent and vocab_file:
        notes.append(
            f"warning: the records of {', '.join(silent)} have no metadata with their "
            f"vocabulary: it could not be compared with {vocab_file}. Check that they "
            "were made with it; `python -m bert_tf data show` prints them as text."
        )
        if not (files.vocab_file or start.is_own):
            vocab_file = ""  # The records may be of another vocabulary.
    if records and not vocab_file:
        notes.append(_missing_vocabulary(files))
    choice = choose_settings(
        {"do_lower_case": files.do_lower_case},
        _folders(files, start, source, vocab_file),
        vocab_file,
        common_case(known),
    )
    if choice is None:
        return RunTokenizer(vocab_file, None, notes)
    return RunTokenizer(vocab_file, choice.settings, [*choice.notes, *notes])


def _missing_vocabulary(files: RunFilesConfig) -> str:
    """A line about checkpoints without a vocabulary, or next to a doubtful one."""
    left = _in_output_dir(files)
    if left:
        return (
            f"warning: {left} stays next to the checkpoints, and may not be the "
            "vocabulary of the records: pass theirs as --vocab_file, or delete it."
        )
    return (
        "No vocabulary is stored next to the checkpoints: pass that of the records as "
        "--vocab_file."
    )


def _initial_weights(files: RunFilesConfig, start: StartingPoint) -> Source | None:
    """The files of init_checkpoint, which a resumed run no longer needs."""
    if not files.init_checkpoint:
        return None
    try:
        return find_source(files.init_checkpoint)
    except (FileNotFoundError, ValueError):
        if start.is_own:
            return None
        raise


def _vocabulary_of_weights(
    files: RunFilesConfig, start: StartingPoint, source: Source | None
) -> str:
    """The vocabulary next to the weights that a run starts from, or empty."""
    if start.is_own and (own := _in_output_dir(files)):
        return own
    return source.vocab_file if source else ""


def _in_output_dir(files: RunFilesConfig) -> str:
    path = os.path.join(files.output_dir, VOCABULARY)
    return path if os.path.isfile(path) else ""


def _vocabulary_of_records(known: Iterable[Metadata]) -> str:
    """The vocabulary of the records, if the file is still there and unchanged."""
    for about in known:
        path = (about.config or {}).get("vocab_file")
        if about.vocab_sha256 and isinstance(path, str) and os.path.isfile(path):
            if vocabulary_sha256(path) == about.vocab_sha256:
                return path
    return ""


def _folders(
    files: RunFilesConfig, start: StartingPoint, source: Source | None, vocab_file: str
) -> list[str]:
    """Folders that may have the tokenizer's files, the decisive one first."""
    folders = [files.output_dir] if start.is_own else []
    if source:
        folders.append(folder_of(source.path))
    if vocab_file:
        folders.append(folder_of(vocab_file))
    return folders
