"""Inputs of the real models, with what is known of their outputs."""

import re

import numpy as np
from oracles import files

SENTENCE = "That is a happy person"
# Published with the sentence-similarity example of the model.
KNOWN_COSINES = {
    "That is a happy dog": 0.6946,
    "That is a very happy person": 0.9429,
    "Today is a sunny day": 0.2569,
}
PAIRS = [
    ("The quick brown fox jumps over the lazy dog.", ""),
    ("Four score and seven years ago our fathers brought forth a new nation.", ""),
    ("Who wrote the Divine Comedy?", "Dante Alighieri, born in Florence, wrote it."),
    ("Water boils at 100 °C.", "Near the summit of Everest it boils at about 71 °C!"),
]
# Amide coupling, esterification, two acetylations (aspirin, paracetamol), Suzuki
# coupling, reduction of a nitro group.
REACTIONS = [
    "O=C(O)c1ccccc1.NCc1ccccc1>>O=C(NCc1ccccc1)c1ccccc1",
    "O=C(O)c1ccccc1.CCO>>CCOC(=O)c1ccccc1",
    "CC(=O)OC(C)=O.O=C(O)c1ccccc1O>>CC(=O)Oc1ccccc1C(=O)O",
    "CC(=O)OC(C)=O.Nc1ccc(O)cc1>>CC(=O)Nc1ccc(O)cc1",
    "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
    "COc1ccc([N+](=O)[O-])cc1>>COc1ccc(N)cc1",
]
# Bracketed atoms, atoms of two letters, the arrow, long ring numbers, the rest.
_SMILES_TOKEN = re.compile(r"\[[^]]+]|Br|Cl|>>|%\d\d|.")
MASK_STRIDE = 7  # One token in seven is masked at a time, about the paper's 15%.


def encode_pair(tokenizer, first, second=""):
    """[CLS] first [SEP] second [SEP] -> ids and segments."""
    a, b = tokenizer.encode([first, second])
    special = tokenizer.special
    ids = [special.cls, *a, special.sep]
    segments = [0] * len(ids) + [1] * (len(b) + 1 if b else 0)
    return ids + ([*b, special.sep] if b else []), segments


def masked_reactions():
    """Every token of every reaction masked once: (ids, positions, true ids)."""
    vocabulary = files.rxnfp_vocabulary()
    for smiles in REACTIONS:
        tokens = ["[CLS]", *_SMILES_TOKEN.findall(smiles), "[SEP]"]
        ids = np.array([vocabulary[token] for token in tokens])
        for first in range(1, MASK_STRIDE + 1):
            positions = np.arange(first, len(ids) - 1, MASK_STRIDE)
            masked = ids.copy()
            masked[positions] = vocabulary["[MASK]"]
            yield masked, positions, ids[positions]


def mean_vector(hidden):
    """[S, H] of real tokens -> their mean, of length 1."""
    mean = hidden.mean(axis=0)
    return mean / np.linalg.norm(mean)
