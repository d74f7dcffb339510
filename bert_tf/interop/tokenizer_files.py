"""A vocabulary as the files that transformers' tokenizers are read from."""

import json
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from bert_tf.data.tokenization import (
    CONTINUATION,
    MAX_CHARS_PER_WORD,
    SPECIAL_TOKENS,
    load_vocabulary,
)


def is_lower_case(vocabulary: list[str]) -> bool:
    """Whether a vocabulary is an uncased one: no token but special ones has capitals.

    Args:
      vocabulary: The tokens; those in brackets, as [CLS], are special.
    """
    return all(
        token == token.lower()
        for token in vocabulary
        if not (token.startswith("[") and token.endswith("]"))
    )


def tokenizer_files(
    vocab_file: str, do_lower_case: bool | None, max_positions: int
) -> dict[str, str]:
    """Makes the files of a tokenizer.

    Args:
      vocab_file: One token per line.
      do_lower_case: Lower-case and strip accents; None: if the vocabulary is uncased.
      max_positions: Most tokens of a sequence.

    Returns:
      File name -> text, for `tokenizer.json`, `tokenizer_config.json` and `vocab.txt`.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`.
    """
    vocabulary = load_vocabulary(vocab_file)
    if do_lower_case is None:
        do_lower_case = is_lower_case(vocabulary)
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": do_lower_case,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "model_max_length": max_positions,
        **{f"{role}_token": token for role, token in _special_roles().items()},
    }
    return {
        "tokenizer.json": _tokenizer(vocabulary, do_lower_case),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "vocab.txt": "".join(f"{token}\n" for token in vocabulary),
    }


def _special_roles() -> dict[str, str]:
    return SPECIAL_TOKENS._asdict()


def _tokenizer(vocabulary: list[str], do_lower_case: bool) -> str:
    """`tokenizer.json`: BERT's rules, and [CLS] A [SEP] B [SEP] around its tokens."""
    ids = {token: place for place, token in enumerate(vocabulary)}
    special = SPECIAL_TOKENS
    tokenizer = Tokenizer(
        WordPiece(
            ids,
            unk_token=special.unk,
            max_input_chars_per_word=MAX_CHARS_PER_WORD,
            continuing_subword_prefix=CONTINUATION,
        )
    )
    tokenizer.add_special_tokens(list(special))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=do_lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special.cls} $A {special.sep}",
        pair=f"{special.cls} $A {special.sep} $B:1 {special.sep}:1",
        special_tokens=[(token, ids[token]) for token in (special.cls, special.sep)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    values: dict[str, Any] = json.loads(tokenizer.to_str())
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"
