"""Which architecture and vocabulary a run has: named, or beside its weights."""

import json
import os
import shutil

from bert_tf.config import PRESETS, BertConfig
from bert_tf.config.finetuning import FinetuningFilesConfig
from bert_tf.config.run import RunFilesConfig
from bert_tf.data.tokenization import load_vocabulary
from bert_tf.files import whole_file, write_whole
from bert_tf.interop.sources import find_source
from bert_tf.interop.weights import read_config


def load_bert_config(files: RunFilesConfig) -> BertConfig:
    """The architecture, checked against the vocabulary file if one is named.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a value is out of range, or the vocabulary has another size.
    """
    if files.preset:
        bert = PRESETS[files.preset]
    elif files.bert_config_file:
        bert = BertConfig.from_json_file(files.bert_config_file)
    else:
        bert = _config_beside(files)
    if files.vocab_file:
        _check_vocabulary(files.vocab_file, bert)
    return bert


def find_vocabulary(files: RunFilesConfig) -> str:
    """The vocabulary that is named, that beside the weights, or the run's own.

    Raises:
      FileNotFoundError: if there is none.
    """
    if files.vocab_file:
        return files.vocab_file
    found = files.init_checkpoint and find_source(files.init_checkpoint).vocab_file
    if found:
        return found
    own = os.path.join(files.output_dir, "vocab.txt")
    if os.path.isfile(own):
        return own
    raise FileNotFoundError(
        "`vocab_file` must be given: there is no vocab.txt beside `init_checkpoint` or "
        f"in `output_dir`. Received: init_checkpoint={files.init_checkpoint!r}, "
        f"output_dir={files.output_dir!r}."
    )


def _config_beside(files: RunFilesConfig) -> BertConfig:
    """The architecture beside init_checkpoint, or else in output_dir."""
    found = None
    if files.init_checkpoint:
        found = read_config(find_source(files.init_checkpoint))
    if found is not None:
        return found
    own = os.path.join(files.output_dir, "bert_config.json")
    if os.path.isfile(own):
        return BertConfig.from_json_file(own)
    raise ValueError(
        "`bert_config_file` or `preset` must be given: there is no config beside "
        "`init_checkpoint` or in `output_dir`. Received: init_checkpoint="
        f"{files.init_checkpoint!r}, output_dir={files.output_dir!r}."
    )


def write_architecture(output_dir: str, bert: BertConfig, vocab_file: str) -> None:
    """Puts bert_config.json, and vocab.txt if there is one, beside the checkpoints."""
    text = json.dumps(bert.to_dict(), indent=2)
    write_whole(os.path.join(output_dir, "bert_config.json"), text)
    path = os.path.join(output_dir, "vocab.txt")
    if vocab_file and os.path.abspath(vocab_file) != os.path.abspath(path):
        with open(vocab_file, "rb") as vocabulary, whole_file(path) as file:
            shutil.copyfileobj(vocabulary, file)


def case_warnings(files: FinetuningFilesConfig) -> list[str]:
    """A line if text is lower-cased for a vocabulary that has capital letters."""
    if not files.do_lower_case:
        return []
    vocab_file = find_vocabulary(files)
    words = [w for w in load_vocabulary(vocab_file) if not w.startswith("[")]
    num_capital = sum(word != word.lower() for word in words)
    # Uncased vocabularies have no such word, cased ones a third.
    if num_capital < len(words) / 100:
        return []
    return [
        f"warning: {vocab_file} has {num_capital} words with capital letters, which "
        "--do_lower_case=True never finds: a cased model wants --nodo_lower_case."
    ]


def check_words(vocab_file: str, bert: BertConfig) -> None:
    """Refuses a vocabulary with words that the architecture has no row for.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`; or if there are such words.
    """
    num_words = len(load_vocabulary(vocab_file))
    if num_words > bert.vocab_size:
        raise _misfit(vocab_file, num_words, bert)


def _check_vocabulary(vocab_file: str, bert: BertConfig) -> None:
    if not os.path.isfile(vocab_file):
        raise FileNotFoundError(f"`vocab_file` {vocab_file} does not exist.")
    with open(vocab_file, "rb") as file:
        num_words = sum(1 for line in file if line.strip())
    # Tables padded to a multiple of 8 rows are common, and harmless.
    if not num_words <= bert.vocab_size < num_words + 8:
        raise _misfit(vocab_file, num_words, bert)


def _misfit(vocab_file: str, num_words: int, bert: BertConfig) -> ValueError:
    return ValueError(
        f"{vocab_file} has {num_words} words, but the architecture says "
        f"vocab_size={bert.vocab_size}. Use the vocab.txt that belongs to it."
    )
