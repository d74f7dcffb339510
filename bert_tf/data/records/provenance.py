"""What records were made with: vocabulary and case, compared between folders."""

from collections.abc import Iterable, Mapping
from typing import Any

from bert_tf.data.records.metadata import (
    Metadata,
    described_path,
    metadata_file,
    read_metadata,
)
from bert_tf.data.text.tokenizer_settings import StatedSettings, stated_settings
from bert_tf.data.text.vocabulary import (
    has_sha256,
    load_vocabulary,
    vocabulary_sha256,
)


def check_vocabulary(vocab_file: str, known: Mapping[str, Metadata]) -> None:
    """Compares a vocabulary with those that records were made with.

    Args:
      vocab_file: The vocabulary to use.
      known: Folder of records -> metadata; without a vocabulary in it, it is skipped.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`; or if records were made with
        another vocabulary, naming both.
    """
    for folder, about in known.items():
        sha256 = about.vocab_sha256
        if sha256 is None or has_sha256(vocab_file, sha256):
            continue
        size = "" if about.vocab_size is None else f" of {about.vocab_size} words"
        num_words = len(load_vocabulary(vocab_file))
        raise ValueError(
            f"{metadata_file(folder)}: the records were made with another vocabulary, "
            f"sha256 {sha256[:12]}...{size}. Received: {vocab_file}, sha256 "
            f"{vocabulary_sha256(vocab_file)[:12]}... of {num_words} words. Pass "
            "the vocabulary of the records as --vocab_file, or make the records again."
        )


def check_vocabularies(known: Mapping[str, Metadata]) -> None:
    """Refuses folders that were made with different vocabularies.

    Args:
      known: Folder -> metadata; one that names no vocabulary is skipped.

    Raises:
      ValueError: naming two of them.
    """
    named = {folder: about for folder, about in known.items() if about.vocab_sha256}
    first, *others = named or [""]
    for folder in others:
        ours, theirs = named[first].vocab_sha256, named[folder].vocab_sha256
        if ours != theirs:
            raise ValueError(
                "All records must be made with the same vocabulary. Received: sha256 "
                f"{ours[:12]}... in {metadata_file(first)}, {theirs[:12]}... in "
                f"{metadata_file(folder)}. Use one of them alone, or make the "
                "other records again."
            )


def common_case(known: Mapping[str, Metadata]) -> StatedSettings | None:
    """The case and accents that the folders state; None if none does.

    Args:
      known: Folder -> metadata.

    Raises:
      ValueError: if two of them differ.
    """
    stated = [
        stated_settings(about.config or {}, metadata_file(folder))
        for folder, about in known.items()
    ]
    first, *others = [each for each in stated if each] or [None]
    for other in others:
        for name, value in first.values.items():
            if other.values[name] != value:
                raise ValueError(
                    "All records must be made with the same case and accents. "
                    f"Received: {name}={value} in {first.source}, {name}="
                    f"{other.values[name]} in {other.source}. Use one of them "
                    "alone, or make the other records again."
                )
    return first


def have_pairs(known: Mapping[str, Metadata]) -> bool | None:
    """Whether records were made for next-sentence prediction; None if unknown.

    Args:
      known: Folder -> metadata.

    Raises:
      ValueError: if two of them differ.
    """
    stated = {
        folder: about.config.get("do_nsp") is not False
        for folder, about in known.items()
        if about.config
    }
    if len({*stated.values()}) < 2:
        return next(iter(stated.values()), None)
    named = {has_pairs: metadata_file(folder) for folder, has_pairs in stated.items()}
    raise ValueError(
        "All records must be made with sentence pairs, or none. Received: do_nsp=true "
        f"in {named[True]}, do_nsp=false in {named[False]}. Pass --nodo_nsp to train "
        "the masked LM alone, or use one of them alone."
    )


def origin_of(files: Iterable[str]) -> dict[str, Any]:
    """What record files were made with, for the metadata of records made from them.

    Args:
      files: The record files.

    Returns:
      `vocab_size`, `vocab_sha256` and `config`, as far as all folders agree; empty if
      one of them has no metadata. `do_nsp` is false if it is in one of them.

    Raises:
      ValueError: if two folders have different vocabularies or cases.
    """
    folders = sorted({*map(described_path, files)})
    found = {folder: read_metadata(folder) for folder in folders}
    known = {folder: about for folder, about in found.items() if about}
    # A mixture counts as records without pairs, since some of it has none.
    single = [x for x in known.values() if (x.config or {}).get("do_nsp") is False]
    without_pairs = {"do_nsp": False} if single else {}
    if len(known) < len(found):
        return {"config": without_pairs} if single else {}
    check_vocabularies(known)
    common_case(known)
    first, *others = known.values()
    origin = {
        name: getattr(first, name)
        for name in ("vocab_size", "vocab_sha256")
        if all(getattr(other, name) == getattr(first, name) for other in others)
    }
    config = {
        name: value
        for name, value in (first.config or {}).items()
        if all((other.config or {}).get(name) == value for other in others)
    }
    config |= without_pairs
    return origin | ({"config": config} if config else {})
