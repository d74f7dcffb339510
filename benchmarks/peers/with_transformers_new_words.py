"""transformers on PyTorch: rows that `resize_token_embeddings` gives to new words.

    python with_transformers_new_words.py MODEL NUM_WORDS SEED OUTPUT

Writes the rows [words, width] of the word table and the biases [words] as .npz.
"""

import sys

import numpy as np
import torch
import transformers
from transformers import BertForMaskedLM

folder, words, seed, output = sys.argv[1:]
transformers.logging.set_verbosity_error()
torch.manual_seed(int(seed))
model = BertForMaskedLM.from_pretrained(folder)
model.resize_token_embeddings(model.config.vocab_size + int(words))
table = model.get_input_embeddings().weight.detach().numpy()
bias = model.get_output_embeddings().bias.detach().numpy()
np.savez(output, rows=table[-int(words) :], bias=bias[-int(words) :])
