"""Metadata of a folder or file of records, in <path>_metadata.json next to it."""

import dataclasses
import json
import os
import shlex
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Self

from bert_tf.data.output_files import OutputFile
from bert_tf.data.pretraining.statistics import SUMMARY, check_summary
from bert_tf.errors import CorruptRecordError
from bert_tf.files import write_whole
from bert_tf.json_files import parse_json

# More than there are records, tokens or bytes anywhere.
_LARGEST = 2**62


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One record file.

    Attributes:
      name: File name within the folder.
      records: Samples in it.
      bytes: Size of the file.
      crc32c: Checksum of the file, 8 hexadecimal digits.
    """

    name: str
    records: int
    bytes: int
    crc32c: str

    def __post_init__(self) -> None:
        """Checks the values."""
        _require_types(self)
        if not self.name or os.path.basename(self.name) != self.name:
            _refuse("name", "be the name of a file in the folder", self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """Metadata of a folder of records, packed or not.

    The packer of Habana's Model-References writes such files too, with fewer keys and
    for packed records only: missing keys are None, and a missing `packed` is true.

    Attributes:
      format: tfrecord or hdf5.
      packed: Whether a sample holds several sequences.
      max_seq_length: S, tokens per sample.
      max_predictions_per_seq: Maximum number of masked tokens of a sequence.
      max_predictions_per_pack: Width of the masked_lm_* features.
      max_sequences_per_pack: K, maximum sequences of a sample; 1 if not packed.
      original_number_of_samples: Number of sequences.
      new_number_of_samples: Number of samples.
      avg_seq_per_sample: Sequences per sample, >= 1.
      packing_efficiency: Fraction of the tokens that are not padding, in [0, 1].
      padding_tokens_original_dataset: Padding tokens of one sequence per sample.
      shards: The record files.
      vocab_size: V of the vocabulary.
      vocab_sha256: Of the vocabulary file, hexadecimal.
      seed: The seed that the records were made with.
      config: The settings that the records were made with.
      extra: All other keys of the file.
    """

    format: str | None = "tfrecord"
    packed: bool = True
    max_seq_length: int | None = None
    max_predictions_per_seq: int | None = None
    max_predictions_per_pack: int | None = None
    max_sequences_per_pack: int | None = None
    original_number_of_samples: int | None = None
    new_number_of_samples: int | None = None
    avg_seq_per_sample: float
    packing_efficiency: float | None = None
    padding_tokens_original_dataset: int | None = None
    shards: tuple[Shard, ...] | None = None
    vocab_size: int | None = None
    vocab_sha256: str | None = None
    seed: int | None = None
    config: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the values, also against each other."""
        _require_types(self)
        if self.avg_seq_per_sample < 1:
            _refuse("avg_seq_per_sample", "be at least 1", self.avg_seq_per_sample)
        if not self.packed and self.avg_seq_per_sample != 1:
            _refuse(
                "avg_seq_per_sample",
                "be 1 where `packed` is false",
                self.avg_seq_per_sample,
            )
        if self.packing_efficiency is not None and self.packing_efficiency > 1:
            _refuse("packing_efficiency", "be at most 1", self.packing_efficiency)
        if self.shards is not None and self.new_number_of_samples is not None:
            total = sum(shard.records for shard in self.shards)
            if total != self.new_number_of_samples:
                _refuse(
                    "new_number_of_samples",
                    f"be the sum of `shards`' records, {total}",
                    self.new_number_of_samples,
                )

    @classmethod
    def of_counts(
        cls, counts: Mapping[str, int], max_seq_length: int, **others: object
    ) -> Self:
        """Metadata whose averages follow from `records`, `sequences` and `tokens`."""
        records, sequences = counts["records"], counts["sequences"]
        return cls(
            max_seq_length=max_seq_length,
            original_number_of_samples=sequences,
            new_number_of_samples=records,
            avg_seq_per_sample=sequences / records,
            packing_efficiency=counts["tokens"] / (records * max_seq_length),
            padding_tokens_original_dataset=sequences * max_seq_length
            - counts["tokens"],
            **others,
        )


def record_shards(files: Iterable[OutputFile]) -> tuple[Shard, ...]:
    """Describes files with a count of `records` for metadata."""
    return tuple(
        Shard(
            name=file.name,
            records=file.counts["records"],
            bytes=file.bytes,
            crc32c=file.crc32c,
        )
        for file in files
    )


def metadata_file(record_dir: str | os.PathLike[str]) -> str:
    """Path of the metadata of a folder or file; of a link's target if it alone has."""
    path = os.path.abspath(record_dir) + "_metadata.json"
    target = os.path.realpath(record_dir) + "_metadata.json"
    return target if os.path.exists(target) and not os.path.exists(path) else path


def indexing(record_dir: str | os.PathLike[str], options: str = "") -> str:
    """The command that writes the metadata of records, for messages."""
    folder = shlex.quote(os.fspath(record_dir) or ".")
    return f"`python -m bert_tf data index --input_dir={folder}{options}`"


def rewriting(record_dir: str | os.PathLike[str]) -> str:
    """The command that writes the metadata of records again, for messages."""
    return indexing(record_dir, " --overwrite")


def described_path(record_file: str) -> str:
    """What the metadata of a record file describes: the file alone, or its folder."""
    has_own = os.path.exists(metadata_file(record_file))
    return record_file if has_own else os.path.dirname(record_file)


def read_metadata(record_dir: str | os.PathLike[str]) -> Metadata | None:
    """Reads and checks the metadata of a folder of records.

    Args:
      record_dir: The folder, or one record file; the metadata is next to it.

    Returns:
      The metadata, or None if there is no such file.

    Raises:
      ValueError: if the file is not valid, naming file and key.
    """
    path = metadata_file(record_dir)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return None
    try:
        values = parse_json(content)
        if not isinstance(values, dict):
            raise ValueError("it must hold a JSON object.")
        return _from_json(values)
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid metadata of records: {str(error).rstrip('.')}. "
            f"Write it again with {rewriting(record_dir)}."
        ) from None


def _from_json(values: dict[str, Any]) -> Metadata:
    names = {field.name for field in dataclasses.fields(Metadata)} - {"extra"}
    known = {name: value for name, value in values.items() if name in names}
    if "avg_seq_per_sample" not in known:
        raise ValueError("`avg_seq_per_sample` is missing.")
    shards = known.get("shards")
    if shards is not None:
        if not isinstance(shards, list):
            _refuse("shards", "be a list", shards)
        known["shards"] = tuple(_shard_from_json(shard) for shard in shards)
    extra = {name: value for name, value in values.items() if name not in names}
    check_summary(extra.get(SUMMARY))
    metadata = Metadata(**known, extra=extra)
    for name in ("config", "extra"):
        try:
            json.dumps(getattr(metadata, name), allow_nan=False)
        except ValueError:
            _refuse(name, "hold finite numbers only", getattr(metadata, name))
    return metadata


def _shard_from_json(values: object) -> Shard:
    keys = {field.name for field in dataclasses.fields(Shard)}
    if not isinstance(values, dict) or not keys <= set(values):
        _refuse("shards", f"hold objects with {', '.join(sorted(keys))}", values)
    return Shard(**{key: values[key] for key in keys})


def write_metadata(record_dir: str | os.PathLike[str], metadata: Metadata) -> str:
    """Writes the metadata of a folder of records, atomically.

    Args:
      record_dir: The folder; the file is written next to it.
      metadata: The values to write; those that are None are left out.

    Returns:
      Path of the file.
    """
    path = metadata_file(record_dir)
    values = dataclasses.asdict(metadata)
    values |= values.pop("extra")
    values = {name: value for name, value in values.items() if value is not None}
    text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, text)
    return path


def _refuse(name: str, rule: str, value: object) -> typing.NoReturn:
    raise ValueError(f"`{name}` must {rule}. Received: {name}={value!r}.")


def _require_types(instance: object) -> None:
    """Each field must hold its declared type; numbers are finite and not negative."""
    for name, declared in typing.get_type_hints(type(instance)).items():
        value = getattr(instance, name)
        options = (
            typing.get_args(declared)
            if isinstance(declared, types.UnionType)
            else (declared,)
        )
        allowed = tuple(typing.get_origin(option) or option for option in options)
        if float in allowed:
            allowed += (int,)
        is_stray_bool = isinstance(value, bool) and bool not in allowed
        if not isinstance(value, allowed) or is_stray_bool:
            _refuse(name, f"be of type {declared}", value)
        if isinstance(value, int | float) and not (0 <= value < _LARGEST):
            _refuse(name, f"be a number in [0, {_LARGEST})", value)


def most_predictions(known: Iterable[Metadata]) -> int | None:
    """P of the sequences of packed records, which may be mixed; None if unknown."""
    found = [about.max_predictions_per_seq for about in known]
    return max(found) if found and all(found) else None


def check_lengths(
    input_files_dir: str,
    found: Mapping[str, int | None],
    given: Mapping[str, int | None],
    *,
    stated_by: Mapping[str, Mapping[str, int | None]] | None = None,
) -> None:
    """Compares lengths of records with the flags, as far as both are known.

    Args:
      input_files_dir: The setting that names the records.
      found: Name of a flag -> what the records have.
      given: Name of a flag -> its value.
      stated_by: Folder or file -> the lengths that its metadata state and its records
        may contradict, if these are not opened yet.

    Raises:
      CorruptRecordError: naming both, and with `stated_by` the command that writes
        these metadata again.
    """
    for name, value in given.items():
        if None not in (value, found[name]) and value != found[name]:
            commands = " and ".join(
                rewriting(path)
                for path, stated in (stated_by or {}).items()
                if stated[name] not in (None, value)
            )
            advice = f" If they have it, update their metadata with {commands}."
            raise CorruptRecordError(
                f"`{name}` must be {found[name]}, that of the records of "
                f"{input_files_dir}. Received: {name}={value}. Pass --{name}="
                f"{found[name]}, or make records with --{name}={value}."
                + (advice if commands else "")
            )
