"""Real weights that `make setup` puts under `.data`, and how to read them."""

import functools
import json
import pathlib

from oracles.legacy_torch import load_legacy

from bert_tf.interop import huggingface

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT / ".data"
MINILM = DATA / "models/minilm"
RXNFP = DATA / "models/rxnfp"
VOCAB_FILE = DATA / "vocab.txt"


def require(path):
    """The path, if it is a file; a failing test that says what to do, if not."""
    if not path.is_file():
        raise AssertionError(
            f"{path.relative_to(ROOT)} is not there: `make setup` fetches it."
        )
    return path


def read_config(folder):
    """The configuration that a published model came with, as a dictionary."""
    return json.loads(require(folder / "config.json").read_text())


@functools.cache
def minilm_weights():
    """Trained encoder without heads: the original's names -> float32 arrays."""
    tensors = huggingface.read_safetensors(require(MINILM / "model.safetensors"))
    return huggingface.to_original_names(tensors)


@functools.cache
def rxnfp_weights():
    """Trained model of chemistry with both heads of pre-training, by original names."""
    tensors = load_legacy(require(RXNFP / "pytorch_model.bin"))
    return huggingface.to_original_names(tensors)


def rxnfp_vocabulary():
    """Token -> id of the chemistry model."""
    lines = require(RXNFP / "vocab.txt").read_text().splitlines()
    return {token: place for place, token in enumerate(lines)}
