"""Weights in several files, and the index that says which tensor is in which."""

import json
import os
import re
from collections.abc import Callable

import numpy as np

from bert_tf.files import placeholder

INDEX = ".index.json"
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)$")
_MAX_INDEX_BYTES = 64 << 20

Tensors = dict[str, np.ndarray]


def index_of_part(path: str) -> str:
    """Where the index of a part should be; empty if the file is no part of several."""
    found = _PART.match(path)
    return f"{found[1]}{found[3]}{INDEX}" if found and int(found[2]) > 1 else ""


def load_sharded(path: str, load: Callable[[str], Tensors]) -> Tensors:
    """Reads the tensors of all files that an index names.

    Args:
      path: The index: `model.safetensors.index.json`, `pytorch_model.bin.index.json`.
      load: Reads one file.

    Returns:
      Name -> values, as in the files.

    Raises:
      FileNotFoundError: naming the files that are missing.
      ValueError: if the index is damaged, names files elsewhere, or does not say what
        is in its files.
    """
    places = _read_index(path)
    folder = os.path.dirname(path)
    parts = sorted(set(places.values()))
    absent = [part for part in parts if not os.path.isfile(os.path.join(folder, part))]
    if absent:
        raise FileNotFoundError(
            f"{path} names {len(parts)} files, of which there is no "
            f"{', '.join(absent)}. Fetch all of them."
        )
    tensors: Tensors = {}
    for part in parts:
        found = load(os.path.join(folder, part))
        expected = {name for name, place in places.items() if place == part}
        if found.keys() != expected:
            name = sorted(found.keys() ^ expected)[0]
            raise ValueError(
                f"{path} and {part} do not belong together: only one of them has "
                f"{name}. Fetch both again."
            )
        tensors |= found
    return {name: tensors[name] for name in places}


def _read_index(path: str) -> dict[str, str]:
    """Tensor -> file, which is in the index's own folder."""
    try:
        if os.path.getsize(path) > _MAX_INDEX_BYTES:
            raise ValueError(f"it has over {_MAX_INDEX_BYTES} bytes")
        if found := placeholder(path):
            raise ValueError(f"it is {found}")
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        places = values.get("weight_map") if isinstance(values, dict) else None
        if not isinstance(places, dict) or not places:
            raise ValueError("it has no `weight_map`")
        for place in places.values():
            if not isinstance(place, str) or os.path.basename(place) != place:
                raise ValueError(f"it names {place!r}, which is no file beside it")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not an index of weights: {error}. Fetch it again."
        ) from error
    return places
