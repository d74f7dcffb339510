"""Windows of SQuAD's questions, built in several processes and cached in a file."""

import dataclasses
import hashlib
import json
import os
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from bert_tf.data.processes import in_order
from bert_tf.data.tasks.squad_files import SquadExample
from bert_tf.data.tasks.squad_windows import (
    SquadWindows,
    TooManyTokensError,
    WindowSettings,
    build_windows,
    join_windows,
    too_many_tokens,
)
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.data.text.tokenization import TokenizerSettings, cached_tokenizer
from bert_tf.files import file_sha256, remove_unfinished, whole_file
from bert_tf.resources import memory_total

# Increased when the same input makes other windows, or the file format changes.
_FORMAT_VERSION = 1

# Per token of a window: four numbers of 4 bytes and one of 1, their copies while parts
# are joined, and its logits as float32 and float64 with their ranks.
_BYTES_PER_TOKEN = 96

# Starting a process takes longer than so many questions.
_EXAMPLES_PER_TASK = 2048

_SEQUENCE_DTYPES = {
    field.name: np.dtype(np.int64 if field.name == "offsets" else np.int32)
    for field in dataclasses.fields(TokenSequences)
}
_WINDOW_DTYPES = {
    field.name: np.dtype(np.bool_ if field.name == "is_max_context" else np.int32)
    for field in dataclasses.fields(SquadWindows)
    if field.name != "sequences"
}
_DTYPES = _SEQUENCE_DTYPES | _WINDOW_DTYPES
_PER_WINDOW = ("example_index", "answer_first", "answer_last")

# What reading a damaged .npz has been seen to raise.
_DAMAGE = (
    ValueError,
    KeyError,
    EOFError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_or_build_windows(
    data_file: str,
    examples: Sequence[SquadExample],
    vocab_file: str,
    tokenizer_settings: TokenizerSettings,
    settings: WindowSettings,
    cache_dir: str,
    num_processes: int,
) -> SquadWindows:
    """The windows of a file's questions, from the cache if they are in it.

    Args:
      data_file: The SQuAD file that the examples were read from.
      examples: All of its questions, or some.
      vocab_file: One token per line.
      tokenizer_settings: How text is normalised.
      settings: Lengths.
      cache_dir: Folder for `squad_windows_<hash>.npz`, created if missing; empty for no
        cache. The hash covers everything that the windows depend on. A damaged file is
        built again, with a warning.
      num_processes: Worker processes; 0 means one per core. The result does not depend
        on it.

    Returns:
      The result of `build_windows` for all examples.

    Raises:
      FileNotFoundError, ValueError: if the vocabulary cannot be used, or there are too
        many windows for the memory.
      RunError: if a worker process dies.
    """
    vocab_sha256 = file_sha256(vocab_file) if os.path.isfile(vocab_file) else ""
    arguments = (vocab_file, vocab_sha256, tokenizer_settings, settings)
    if not cache_dir:
        return _build(data_file, examples, arguments, num_processes)
    key = {
        "format": _FORMAT_VERSION,
        "unicode": unicodedata.unidata_version,
        "data": file_sha256(data_file),
        "examples": [(each.question_id, each.is_impossible) for each in examples],
        "vocabulary": vocab_sha256,
        "tokenizer": dataclasses.asdict(tokenizer_settings),
        "settings": dataclasses.asdict(settings),
    }
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    path = os.path.join(cache_dir, f"squad_windows_{digest}.npz")
    try:
        return read_windows(path, len(examples))
    except FileNotFoundError:
        pass
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        warnings.warn(f"{path} is damaged ({reason}) and built again.", stacklevel=2)
    remove_unfinished(cache_dir)
    windows = _build(data_file, examples, arguments, num_processes)
    write_windows(path, windows)
    return windows


def _build(
    data_file: str,
    examples: Sequence[SquadExample],
    arguments: tuple[str, str, TokenizerSettings, WindowSettings],
    num_processes: int,
) -> SquadWindows:
    """Builds windows in worker processes, and joins them."""
    size, memory = _EXAMPLES_PER_TASK, memory_total()
    max_tokens = memory // _BYTES_PER_TOKEN if memory else None
    starts = range(0, max(len(examples), 1), size)
    tasks = ((examples[i : i + size], i, *arguments, max_tokens) for i in starts)
    processes = num_processes if len(starts) > 1 else 1
    parts: list[SquadWindows] = []
    num_tokens = 0
    try:
        for part in in_order(build_part, tasks, processes):
            parts.append(part)
            num_tokens += len(part.char_begin)
            if max_tokens is not None and num_tokens > max_tokens:
                count = min(len(parts) * size, len(examples))
                raise too_many_tokens(count, arguments[-1], max_tokens)
    except TooManyTokensError as error:
        raise ValueError(f"{data_file}: {error}") from None
    return join_windows(parts)


def build_part(
    examples: Sequence[SquadExample],
    first_example: int,
    vocab_file: str,
    vocab_sha256: str,
    tokenizer_settings: TokenizerSettings,
    settings: WindowSettings,
    max_tokens: int | None = None,
) -> SquadWindows:
    """Builds the windows of some questions: one task of a worker process.

    Args:
      examples: Some of the questions.
      first_example: Index of the first of them among all questions.
      vocab_file: One token per line.
      vocab_sha256: Checksum of its content.
      tokenizer_settings: How text is normalised.
      settings: Lengths.
      max_tokens: See `build_windows`.

    Returns:
      Their windows.
    """
    tokenizer = cached_tokenizer(vocab_file, vocab_sha256, tokenizer_settings)
    return build_windows(examples, tokenizer, settings, first_example, max_tokens)


def write_windows(path: str, windows: SquadWindows) -> None:
    """Stores windows in a file, atomically.

    Args:
      path: The file; its folder is created if missing. Several processes may write it
        at once.
      windows: The windows.
    """
    arrays = {name: getattr(windows.sequences, name) for name in _SEQUENCE_DTYPES}
    arrays |= {name: getattr(windows, name) for name in _WINDOW_DTYPES}
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with whole_file(path) as file:
        np.savez(file, **arrays)


def read_windows(path: str, num_examples: int) -> SquadWindows:
    """Reads the windows that `write_windows` stored.

    Args:
      path: The file.
      num_examples: Number of questions whose windows it must hold.

    Returns:
      The windows.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError, or what NumPy and zipfile raise: if it is damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _DTYPES}
    offsets = arrays["offsets"]
    num_windows, num_tokens = len(offsets) - 1, len(arrays["input_ids"])
    for name, dtype in _DTYPES.items():
        size = num_windows if name in _PER_WINDOW else num_tokens
        size = num_windows + 1 if name == "offsets" else size
        array = arrays[name]
        if array.dtype != dtype or array.shape != (size,):
            raise ValueError(
                f"`{name}` must be {dtype} [{size}], not {array.dtype} {array.shape}"
            )
    if offsets[0] != 0 or offsets[-1] != num_tokens or (np.diff(offsets) < 0).any():
        raise ValueError("`offsets` must ascend from 0 to the number of tokens")
    if not np.array_equal(np.unique(arrays["example_index"]), np.arange(num_examples)):
        raise ValueError(f"`example_index` must name {num_examples} questions")
    sequences = TokenSequences(**{name: arrays[name] for name in _SEQUENCE_DTYPES})
    return SquadWindows(sequences, **{name: arrays[name] for name in _WINDOW_DTYPES})
