"""Real trained weights, by google-research names, with what their authors published."""

import json
import re

import numpy as np
from oracles import legacy_torch
from oracles.files import fetched

from bert_tf.interop.huggingface import load_safetensors, rename_tensors

SENTENCES = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
]
# Cosines of the first sentence with the others, as published for this encoder.
COSINES = [0.6946, 0.9429, 0.2569]

# Esterification, amide coupling, Suzuki coupling, reduction of a ketone.
REACTIONS = [
    "CC(=O)O.OCC>>CC(=O)OCC",
    "O=C(O)c1ccccc1.NCc1ccccc1>>O=C(NCc1ccccc1)c1ccccc1",
    "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
    "CC(=O)c1ccccc1.[BH4-].[Na+]>>CC(O)c1ccccc1",
]
_SMILES = re.compile(r"\[[^\]]+\]|Br?|Cl?|>>|%\d\d|[NOSPFIbcnosp()=#\-+\\/:~@?>*$.\d]")


def minilm():
    folder = fetched("models/minilm/config.json").parent
    config = json.loads((folder / "config.json").read_text())
    return load_safetensors(folder / "model.safetensors"), config, folder


def rxnfp():
    folder = fetched("models/rxnfp/config.json").parent
    config = json.loads((folder / "config.json").read_text())
    tensors = legacy_torch.load(folder / "pytorch_model.bin")
    return rename_tensors(tensors, "rxnfp"), config, folder


def padded(rows, length):
    """Rows of ids -> ids, mask and segments, [B, length] int32."""
    ids = np.zeros((len(rows), length), "i4")
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    mask = (np.arange(length) < [[len(row)] for row in rows]).astype("i4")
    return ids, mask, np.zeros_like(ids)


def mean_cosines(hidden, mask):
    """Cosines of the first row's mean vector with the others'."""
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return means[1:] @ means[0]


def masked_reactions(folder):
    """Every fifth token of real reactions masked: ids and mask, positions, answers."""
    words = (folder / "vocab.txt").read_text().split("\n")
    vocab = {word: number for number, word in enumerate(words)}
    rows = [
        [vocab["[CLS]"], *(vocab[t] for t in _SMILES.findall(r)), vocab["[SEP]"]]
        for r in REACTIONS
    ]
    length = max(map(len, rows))
    ids, mask, segments = padded(rows, length)
    positions = [np.arange(2, len(row) - 1, 5) for row in rows]
    width = max(map(len, positions))
    weights = np.asarray([[1] * len(p) + [0] * (width - len(p)) for p in positions])
    positions = np.asarray([np.resize(p, width) for p in positions], "i4")
    answers = np.take_along_axis(ids, positions, 1)
    np.put_along_axis(ids, positions, vocab["[MASK]"], 1)
    return (ids, mask, segments), positions, weights, answers
