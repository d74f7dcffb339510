"""Counts what a text holds before it is used: repeats, lengths, scripts, [UNK]."""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_tf.config.text import CheckConfig, TextConfig
from bert_tf.data.commands.document_files import TASK_BYTES
from bert_tf.data.commands.extract import (
    RawDocument,
    find_input,
    format_of,
    plain_text,
    raw_documents,
)
from bert_tf.data.output_files import no_text_error
from bert_tf.data.processes import in_order
from bert_tf.data.text.documents import FileRange, cut_into_ranges, read_range
from bert_tf.data.text.duplicates import document_key, make_finder
from bert_tf.data.text.line_check import REMEDY, warn_of_plain_text
from bert_tf.data.text.tokenization import TokenizerSettings, cached_tokenizer
from bert_tf.data.text.tokenizer_settings import choose_settings
from bert_tf.files import content_size, file_sha256
from bert_tf.launch import report
from bert_tf.progress import ProgressReport

# Tokenizing takes ten times as long as all the rest: of large texts, a sample.
_TOKENIZED_BYTES = 8 << 20
_RANGE_BYTES = 4 << 20
_LEVELS = (0, 10, 50, 90, 99, 100)
_MOST_EXAMPLES = 5
_BLOCK_SIZE = 16  # Blocks of Unicode begin at multiples of it.


class Tokenizing(NamedTuple):
    """How [UNK] is counted.

    Attributes:
      vocab_file: The vocabulary.
      sha256: Checksum of its content.
      settings: The tokenizer's.
      share: Fraction of the documents that is tokenized.
    """

    vocab_file: str
    sha256: str
    settings: TokenizerSettings
    share: float


@dataclasses.dataclass
class TextPart:
    """What a part of the text holds.

    Attributes:
      keys: One for each document, see `document_key`.
      lengths: Number of characters -> number of documents.
      blocks: Code point // 16 -> number of characters that are no blanks.
      counts: `tokenized` documents, `tokens` of them and `unknown` ones of these;
        `unparsable` documents, which have no text.
      texts: The documents, if near ones are looked for.
    """

    keys: list[bytes] = dataclasses.field(default_factory=list)
    lengths: Counter[int] = dataclasses.field(default_factory=Counter)
    blocks: Counter[int] = dataclasses.field(default_factory=Counter)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    texts: list[str] = dataclasses.field(default_factory=list)


def count_part(
    part: FileRange | list[RawDocument],
    tokenizing: Tokenizing | None,
    keeps_texts: bool,
) -> TextPart:
    """Counts a part of the text: one task of a worker process."""
    found = TextPart()
    texts = list(texts_of(part, found.counts))
    for text in texts:
        found.keys.append(document_key(text))
        found.lengths[len(text)] += 1
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    numbers = np.bincount(codes[codes > ord(" ")] // _BLOCK_SIZE)
    used = np.flatnonzero(numbers)
    found.blocks.update(dict(zip(used.tolist(), numbers[used].tolist(), strict=True)))
    if tokenizing:
        _count_tokens(texts, found, tokenizing)
    found.texts = texts if keeps_texts else []
    return found


def texts_of(
    part: FileRange | list[RawDocument], counts: Counter[str]
) -> Iterator[str]:
    """The documents, with a line for each sentence or paragraph that is not empty."""
    if isinstance(part, FileRange):
        yield from ("\n".join(document) for document in read_range(part, "google"))
        return
    texts = (plain_text(document, counts) for document in part)
    yield from (text for text in texts if text is not None)


def _count_tokens(
    texts: Sequence[str], found: TextPart, tokenizing: Tokenizing
) -> None:
    """Tokenizes documents that their keys choose."""
    tokenizer = cached_tokenizer(*tokenizing[:3])
    for key, text in zip(found.keys, texts, strict=True):
        if int.from_bytes(key[:4], "little") < tokenizing.share * 2**32:
            [ids] = tokenizer.encode([text])
            found.counts["tokenized"] += 1
            found.counts["tokens"] += len(ids)
            found.counts["unknown"] += ids.count(tokenizer.special.unk)


def check_text(config: CheckConfig) -> dict[str, Any]:
    """Reads a text once, whatever its size, and counts what it holds.

    Args:
      config: All settings.

    Returns:
      Numbers by name, as `describe_text` prints them.

    Raises:
      FileNotFoundError: if there is no input, or no vocabulary.
      ValueError: if a file cannot be read, the message says where; or if there is no
        document.
    """
    find = make_finder(config.dedup)
    paths = find_input(config)
    total = sum(map(content_size, paths))
    lines = [path for path in paths if _is_google(path, config)]
    for line in warn_of_plain_text(lines, REMEDY):
        report(line)
    tokenizing = _tokenizing(config, total)
    is_near = config.dedup == "near"
    seen: set[bytes] = set()
    sums, repeated, examples, number = TextPart(), Counter(), [], Counter()
    kept, sent = itertools.tee(text_parts(paths, config))
    tasks = ((part, tokenizing, is_near) for _, _, part in sent)
    with ProgressReport(total, "documents") as progress:
        results = in_order(count_part, tasks, config.num_processes)
        for (path, size, _), part in zip(kept, results, strict=True):
            near = find(part.texts) if is_near else [False] * len(part.keys)
            for key, is_close in zip(part.keys, near, strict=True):
                number[path] += 1
                kind = "exact" if key in seen else "near" if is_close else ""
                seen.add(key)
                repeated[kind] += 1
                if kind and len(examples) < _MOST_EXAMPLES:
                    examples.append(f"{path}, document {number[path]} ({kind})")
            for name in ("lengths", "blocks", "counts"):
                getattr(sums, name).update(getattr(part, name))
            progress.add(size, len(part.keys))
    documents = sum(number.values())
    if not documents:
        raise no_text_error(config.input)
    found = {
        "files": len(paths),
        "bytes": total,
        "documents": documents,
        "unparsable_documents": sums.counts["unparsable"],
        "repeated_documents": repeated["exact"],
        **({"near_repeated_documents": repeated["near"]} if is_near else {}),
        "repeated": examples,
        "characters": _lengths(sums.lengths),
        "blocks": _block_shares(sums.blocks),
    }
    if tokenizing:
        names = ("tokenized", "tokens", "unknown")
        found |= {f"{name}_sampled": sums.counts[name] for name in names}
        found["unknown_share"] = sums.counts["unknown"] / max(sums.counts["tokens"], 1)
    return found


def text_parts(
    paths: Sequence[str], config: TextConfig
) -> Iterator[tuple[str, int, FileRange | list[RawDocument]]]:
    """File, size and content of each task, in order."""
    for path in paths:
        if _is_google(path, config):
            for file_range in cut_into_ranges([path], "google", _RANGE_BYTES):
                yield path, file_range.num_bytes, file_range
            continue
        batch, size = [], 0
        for document, num_bytes in raw_documents([path], config):
            batch.append(document)
            size += num_bytes
            if size >= TASK_BYTES:
                yield path, size, batch
                batch, size = [], 0
        if batch:
            yield path, size, batch


def _is_google(path: str, config: TextConfig) -> bool:
    """Whether a file is read in google's format, as text is without a format."""
    kind = format_of(path, config)
    return kind == "google" or (config.input_format == "auto" and kind == "text")


def _tokenizing(config: CheckConfig, total: int) -> Tokenizing | None:
    if not config.vocab_file:
        return None
    folder = os.path.dirname(config.vocab_file) or "."
    choice = choose_settings({}, [folder], config.vocab_file)
    for note in choice.notes:
        report(note)
    share = min(1.0, _TOKENIZED_BYTES / max(total, 1))
    sha256 = file_sha256(config.vocab_file)
    return Tokenizing(config.vocab_file, sha256, choice.settings, share)


def _lengths(counts: Counter[int]) -> dict[str, float]:
    """Percentiles of lengths (the nearest one that occurs), and their mean."""
    lengths = np.array(sorted(counts))
    numbers = np.array([counts[length] for length in lengths.tolist()])
    ends = np.cumsum(numbers)
    places = [min(int(ends[-1] * level / 100), ends[-1] - 1) for level in _LEVELS]
    found = lengths[np.searchsorted(ends, places, side="right")].tolist()
    values = dict(zip((f"p{level}" for level in _LEVELS), found, strict=True))
    return values | {"mean": float(lengths @ numbers / ends[-1])}


def _block_shares(counts: Counter[int]) -> dict[str, float]:
    """Share of the characters in each block of Unicode, the largest first."""
    from fontTools.unicodedata import block

    names: Counter[str] = Counter()
    for number, count in counts.items():
        names[block(chr(number * _BLOCK_SIZE)).replace("_", " ")] += count
    total = sum(names.values())
    return {name: count / total for name, count in names.most_common()}


def describe_text(found: dict[str, Any]) -> Iterator[str]:
    """The result of `check_text` as a table, and the first repeated documents."""
    documents = found["documents"]
    rows = {
        "files": f"{found['files']:,}, {found['bytes']:,} bytes",
        "documents": f"{documents:,}",
    }
    for name in ("unparsable", "repeated", "near_repeated"):
        count = found.get(f"{name}_documents")
        if count is not None and (count or name == "repeated"):
            rows[name.replace("_", " ")] = f"{count:,} ({count / documents:.2%})"
    for name, length in found["characters"].items():
        rows[f"characters, {name}"] = f"{length:,.0f}"
    if "unknown_share" in found:
        rows["[UNK]"] = (
            f"{found['unknown_share']:.2%} of {found['tokens_sampled']:,} tokens "
            f"({found['tokenized_sampled']:,} documents)"
        )
    rows |= {name: f"{share:.3%}" for name, share in found["blocks"].items()}
    width = max(map(len, rows))
    yield from (f"{name:{width}}  {value}" for name, value in rows.items())
    yield from (f"repeats an earlier one: {place}" for place in found["repeated"])
    names = ("repeated_documents", "near_repeated_documents")
    more = sum(found.get(name, 0) for name in names) - len(found["repeated"])
    if more:
        yield f"and {more:,} more"
