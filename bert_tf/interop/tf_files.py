"""TensorFlow's checkpoint files: names and tensors, in and out.

They are written by TensorFlow, and read without it: see `tf_index`.
"""

import glob
import math
import os
from collections.abc import Callable, Collection, Mapping

import numpy as np
import tensorflow as tf

from bert_tf.files import masked_crc32c, placeholder, sync_folder
from bert_tf.interop.tf_index import TensorPlace, read_index

INDEX = ".index"
# Of the bytes of the data files; a file may be shared by tensors, but not often.
_MAX_REPEATS = 2


def load_tf(
    prefix: str, choose: Callable[[Mapping[str, tuple[int, ...]]], Collection[str]]
) -> dict[str, np.ndarray]:
    """Reads tensors of a checkpoint; executes nothing from it.

    Args:
      prefix: The path without `.index`.
      choose: Of the shapes by name, strings left out: the names to read.

    Returns:
      Name -> values, of the type in the file.

    Raises:
      FileNotFoundError: if the index or a data file is not there.
      ValueError: if a file is damaged, or says what cannot be.
    """
    index_file = prefix + INDEX
    try:
        _require_file(index_file)
        with open(index_file, "rb") as file:
            num_shards, places = read_index(file.read())
        numbers = {name: p for name, p in places.items() if p.dtype is not None}
        chosen = choose({name: place.shape for name, place in numbers.items()})
        return _read(prefix, num_shards, {name: numbers[name] for name in chosen})
    except ValueError as error:
        raise ValueError(
            f"{prefix} cannot be read: {error}. Fetch the checkpoint again."
        ) from error


def save_tf(prefix: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint of names and tensors, as google-research/bert's are.

    The files have their names only when they are whole; the index, without which there
    is no checkpoint, comes last.

    Args:
      prefix: The path without `.index`; replaced if it is there.
      tensors: Name -> values.

    Raises:
      OSError: if it cannot be written.
    """
    names = sorted(tensors)
    temporary = f"{prefix}.tmp"
    data_files = glob.escape(temporary) + ".data-*"
    try:
        tf.raw_ops.SaveV2(
            prefix=temporary,
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tf.constant(tensors[name]) for name in names],
        )
        for path in [*glob.glob(data_files), temporary + INDEX]:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            os.replace(path, prefix + path.removeprefix(temporary))
        sync_folder(os.path.dirname(os.path.abspath(prefix)))
    except tf.errors.OpError as error:
        raise OSError(f"{prefix} cannot be written: {error.message}") from error
    finally:
        for path in glob.glob(glob.escape(temporary) + ".*"):
            os.remove(path)


def _require_file(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"The checkpoint has no file {path}. Name the path without its ending, "
            "such as /dir/bert_model.ckpt, and fetch all of its files."
        )
    if found := placeholder(path):
        raise ValueError(f"{path} is {found}")


def _read(
    prefix: str, num_shards: int, places: Mapping[str, TensorPlace]
) -> dict[str, np.ndarray]:
    """The tensors, shard by shard and in the order of their bytes."""
    shards: dict[int, dict[str, TensorPlace]] = {}
    for name, place in places.items():
        shards.setdefault(place.shard, {})[name] = place
    tensors = {}
    for shard, members in sorted(shards.items()):
        if shard >= num_shards:
            raise ValueError(f"a tensor lies in data file {shard} of {num_shards}")
        path = f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"
        _require_file(path)
        num_bytes = os.path.getsize(path)
        if sum(place.size for place in members.values()) > _MAX_REPEATS * num_bytes:
            raise ValueError(f"its tensors are larger than {path}")
        with open(path, "rb") as file:
            for name in sorted(members, key=lambda name: members[name].offset):
                place = members[name]
                _check(name, place, num_bytes)
                file.seek(place.offset)
                tensors[name] = _decode(name, place, file.read(place.size))
    return {name: tensors[name] for name in places}


def _check(name: str, place: TensorPlace, num_bytes: int) -> None:
    if place.is_sliced:
        raise ValueError(
            f"{name!r} is stored in pieces, as a partitioned variable is; save it whole"
        )
    expected = math.prod(place.shape) * place.dtype.itemsize
    if place.size != expected:
        raise ValueError(
            f"{name!r} of shape {place.shape} must have {expected} bytes, not "
            f"{place.size}"
        )
    if place.offset + place.size > num_bytes:
        raise ValueError(
            f"{name!r} ends at byte {place.offset + place.size} of a data file with "
            f"{num_bytes}"
        )


def _decode(name: str, place: TensorPlace, data: bytes) -> np.ndarray:
    if masked_crc32c(data) != place.crc32c:
        raise ValueError(f"{name!r} is damaged: its checksum differs")
    return np.frombuffer(data, place.dtype).reshape(place.shape)
