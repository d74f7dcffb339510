"""Which architecture a run has, and what is written beside its checkpoints."""

import json
import os
import shutil

from bert_tf.config import PRESETS, BertConfig
from bert_tf.config.run import RunFilesConfig
from bert_tf.data.text.tokenizer_settings import TOKENIZER_CONFIG
from bert_tf.files import whole_file, write_whole
from bert_tf.interop.tokenizer_files import tokenizer_config
from bert_tf.interop.weight_files import ORIGINAL_CONFIG, VOCABULARY, find_source
from bert_tf.interop.weights import read_config
from bert_tf.jobs.starting_point import StartingPoint
from bert_tf.jobs.tokenizer import RunTokenizer


def load_bert_config(files: RunFilesConfig, start: StartingPoint) -> BertConfig:
    """The architecture: that of the flags, or else of the weights.

    A resumed run has its own: what it began with, such as init_checkpoint, may be gone.

    Args:
      files: The settings.
      start: Where the run begins.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a value is out of range, or nothing says the architecture.
    """
    if files.preset:
        return PRESETS[files.preset]
    if files.bert_config_file:
        return BertConfig.from_json_file(files.bert_config_file)
    own = os.path.join(files.output_dir, ORIGINAL_CONFIG)
    has_own = os.path.isfile(own)
    found = None
    if files.init_checkpoint and not (start.is_own and has_own):
        found = read_config(find_source(files.init_checkpoint))
    if found is not None:
        return found
    if has_own:
        return BertConfig.from_json_file(own)
    raise ValueError(
        "`bert_config_file` or `preset` must be given: there is no config beside "
        "`init_checkpoint` or in `output_dir`. Received: init_checkpoint="
        f"{files.init_checkpoint!r}, output_dir={files.output_dir!r}."
    )


def write_architecture(
    output_dir: str, bert: BertConfig, tokenizer: RunTokenizer
) -> None:
    """Puts beside the checkpoints what they are to be used with.

    Args:
      output_dir: Their folder.
      bert: Goes into bert_config.json.
      tokenizer: Goes into vocab.txt and tokenizer_config.json, as far as it is known.
    """
    texts = {ORIGINAL_CONFIG: json.dumps(bert.to_dict(), indent=2)}
    if tokenizer.settings:
        texts[TOKENIZER_CONFIG] = tokenizer_config(
            tokenizer.settings, bert.max_position_embeddings
        )
    for name, text in texts.items():
        write_whole(os.path.join(output_dir, name), text)
    path = os.path.join(output_dir, VOCABULARY)
    vocab_file = tokenizer.vocab_file
    if vocab_file and os.path.realpath(vocab_file) != os.path.realpath(path):
        with open(vocab_file, "rb") as vocabulary, whole_file(path) as file:
            shutil.copyfileobj(vocabulary, file)
