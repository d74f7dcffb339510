"""Reads vocabularies, and checks that two, or one and a model, belong together."""

import hashlib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_tf.errors import listed, shown, similar_path
from bert_tf.files import check_regular
from bert_tf.json_files import read_json_object, read_object

CONTINUATION = "##"
# Ten million words.
_MAX_BYTES = 256 << 20

_UNUSED = re.compile(r"\[unused\d+\]")
_MAX_MULTIPLE = 1024
_MAX_SHARE = 20
_MAX_EXAMPLES = 3


class SpecialTokens(NamedTuple):
    """Ids of the tokens that the algorithm itself needs."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


SPECIAL_TOKENS = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def require_mask(text: str) -> None:
    """Refuses a text without [MASK], in which no token is to be predicted.

    Raises:
      ValueError: if it has none.
    """
    if (mask := SPECIAL_TOKENS.mask) not in text:
        raise ValueError(
            f"A text must hold {mask}. Received: {text[:80]!r}. Write {mask}, in "
            "capital letters, for each token that is to be predicted."
        )


def is_unused(token: str) -> bool:
    """Whether a token is [unusedN], which users may replace."""
    return bool(_UNUSED.fullmatch(token))


def load_vocabulary(vocab_file: str) -> list[str]:
    """Reads a vocabulary, one token per line, or that of a `tokenizer.json`.

    Args:
      vocab_file: A UTF-8 file; any line ends, and blank lines at its end, are allowed.
        With the ending .json: a tokenizer of the library `tokenizers` with WordPiece.

    Returns:
      The tokens; a token's index is its id.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not UTF-8, a token is empty or occurs twice, or one of the
        special tokens is missing; the message names file and line.
    """
    try:
        check_regular(vocab_file, _MAX_BYTES)
        data = Path(vocab_file).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            "`vocab_file` must be an existing file. Received: vocab_file="
            f"{vocab_file}. {similar_path(vocab_file)}".rstrip()
        ) from None
    if _is_json(vocab_file):
        tokens, location = _tokens_of_json(vocab_file), vocab_file
    else:
        tokens = _tokens_of_lines(vocab_file, data)
        location = f"{vocab_file}, lines 1 to {len(tokens)}"
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        raise ValueError(
            f"{location}: the special tokens {', '.join(missing)} are missing. Use a "
            "BERT vocabulary with one token per line."
        )
    return list(tokens)


def vocabulary_text(vocab_file: str) -> bytes:
    """The content of a vocabulary as vocab.txt; that of a text file as it is."""
    if not _is_json(vocab_file):
        return Path(vocab_file).read_bytes()
    return "".join(f"{token}\n" for token in load_vocabulary(vocab_file)).encode()


def vocabulary_sha256(vocab_file: str) -> str:
    """The sha256 of `vocabulary_text`, in hexadecimal digits."""
    return hashlib.sha256(vocabulary_text(vocab_file)).hexdigest()


def has_wordpiece(tokenizer_file: str) -> bool:
    """Whether there is a `tokenizer.json` with a vocabulary like BERT's.

    A damaged file is one: `load_vocabulary` will name the damage.
    """
    try:
        model = read_object(tokenizer_file).get("model")
    except ValueError:
        return True
    return isinstance(model, dict) and _is_wordpiece(model)


def _is_json(vocab_file: str) -> bool:
    return vocab_file.lower().endswith(".json")


def _is_wordpiece(model: Mapping[str, object]) -> bool:
    is_word_piece = model.get("type", "WordPiece") == "WordPiece"
    return is_word_piece and model.get("continuing_subword_prefix") == CONTINUATION


def _tokens_of_json(path: str) -> dict[str, int]:
    """Token -> id of a `tokenizer.json`, in the order of the ids."""
    model = read_json_object(path).get("model")
    model = model if isinstance(model, dict) else {}
    if not _is_wordpiece(model):
        found = [shown(model.get(key)) for key in ("type", "continuing_subword_prefix")]
        raise ValueError(
            f"{path}: the model must be WordPiece, with {CONTINUATION} before pieces "
            f"within words. Received: {' with '.join(found)}. Pass a vocab.txt."
        )
    ids = model.get("vocab")
    ids = ids if isinstance(ids, dict) else {}
    # As lines of a vocab.txt, into which they are written.
    odd = [t for t in ids if not t or t != t.strip(" \t\r\n") or "\n" in t]
    numbers = [*ids.values()]
    is_whole = all(type(number) is int for number in numbers)
    if odd or not numbers or not is_whole or sorted(numbers) != [*range(len(numbers))]:
        found = f"the token {shown(odd[0])}" if odd else "other ids"
        raise ValueError(
            f"{path}: `vocab` must have tokens without blanks around them, with the "
            f"ids 0, 1, 2 and so on. Received: {found}. Pass a vocab.txt."
        )
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _tokens_of_lines(vocab_file: str, data: bytes) -> dict[str, int]:
    """Token -> line, from 1."""
    lines = data.rstrip(b"\r\n").split(b"\n" if b"\n" in data else b"\r")
    tokens: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        token = _decode_token(line, f"{vocab_file}, line {number}", first=number == 1)
        if not token or token in tokens:
            _refuse_text(vocab_file, lines)
        if not token:
            remedy = _replace(number, lines) if len(lines) > 1 else ""
            raise ValueError(
                f"{vocab_file}, line {number}: the line is empty. Each line must hold "
                f"one token. {remedy}"
            )
        if token in tokens:
            # Other programs give the token the id of its last line.
            raise ValueError(
                f"{vocab_file}, line {number}: the token {shown(token)} is on line "
                f"{tokens[token]} already. {_replace(tokens[token], lines)}"
            )
        tokens[token] = number
    return tokens


def _refuse_text(vocab_file: str, lines: Sequence[bytes]) -> None:
    """Refuses a file of several lines without any special token."""
    found = {line.strip() for line in lines}
    if len(lines) > 1 and not found & {token.encode() for token in SPECIAL_TOKENS}:
        raise ValueError(
            f"{vocab_file} is no WordPiece vocabulary, which has one token per line, "
            f"with {', '.join(SPECIAL_TOKENS)}. Received: {len(lines)} lines, none of "
            "which is one of them. Pass the vocab.txt of a model, or make one with "
            "`python -m bert_tf data vocab`."
        )


def _replace(number: int, lines: Sequence[bytes]) -> str:
    """The remedy for a line: replacing it, since removing it would change ids."""
    known = {line.strip() for line in lines}
    names = (f"[unused{n}]" for n in itertools.count())
    free = next(name for name in names if name.encode() not in known)
    return (
        f"Replace line {number} by {free}, which is not in the file. Do not delete the "
        "line: the ids of all later tokens would change."
    )


def _decode_token(line: bytes, location: str, first: bool) -> str:
    """Decodes one line of a vocabulary; the first may have a byte order mark."""
    try:
        return line.decode("utf-8-sig" if first else "utf-8").strip(" \t\r")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{location}: not UTF-8 (byte {error.start}: 0x{line[error.start]:02x}). "
            "Store the vocabulary as UTF-8."
        ) from None


def is_padding(num_rows: int, num_words: int) -> bool:
    """Whether an embedding table has unused rows only to reach a round number.

    Trainers round the number of words up to a multiple of a power of 2: 30522 words
    become 30528 rows (8), 30592 (128) or 30720 (1024).

    Args:
      num_rows: Rows of the table.
      num_words: Words of the vocabulary, or rows of another table.
    """
    surplus = num_rows - num_words
    if surplus < 0:
        return False
    multiple = 8
    while multiple < _MAX_MULTIPLE and surplus >= multiple:
        multiple *= 2
    return surplus < 8 or (surplus < multiple and num_rows % multiple == 0)


def check_size(
    vocab_file: str, num_rows: int, *, may_be_small: bool = False
) -> list[str]:
    """Compares a vocabulary's size with that of a model's word embedding table.

    A table may have unused rows: padding, see `is_padding`, or up to a twentieth (and
    1,024) more, for example if words were added to a model but not to its vocab.txt.

    Args:
      vocab_file: One token per line.
      num_rows: `vocab_size` of the architecture.
      may_be_small: Whether a vocabulary with far fewer words gives only a warning.

    Returns:
      A line about unused rows, if there are any.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`; or if the vocabulary has
        more words than rows, or so few that it is another model's.
    """
    num_words = len(load_vocabulary(vocab_file))
    surplus = num_rows - num_words
    most = num_rows if may_be_small else min(num_words // _MAX_SHARE, _MAX_MULTIPLE)
    if not (0 <= surplus <= most or is_padding(num_rows, num_words)):
        own = ", with your own words in place of [unusedN]" if surplus < 0 else ""
        raise ValueError(
            f"{vocab_file} has {num_words} words, but the architecture has "
            f"vocab_size={num_rows}. Use the vocab.txt that belongs to it{own}."
        )
    if not surplus:
        return []
    kind = "" if is_padding(num_rows, num_words) else "warning: "
    return [
        f"{kind}The word embedding table has {num_rows} rows for the {num_words} words "
        f"of {vocab_file}: the last {surplus} are unused."
    ]


def check_same_words(
    vocab_file: str, model_vocab_file: str, *, has_records: bool = False
) -> list[str]:
    """Compares a vocabulary with that of the weights, token by token.

    The user's own words may replace [unusedN], and may follow after all others.

    Args:
      vocab_file: The vocabulary to use.
      model_vocab_file: The vocabulary that the weights were trained with.
      has_records: Whether there are records, which were made with a vocabulary.

    Returns:
      A line about the user's own words, if there are any.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`; or if a token has another
        id in one of them than in the other.
    """
    if os.path.realpath(vocab_file) == os.path.realpath(model_vocab_file):
        return []
    ours, theirs = load_vocabulary(vocab_file), load_vocabulary(model_vocab_file)
    differing = [
        (number, mine, known)
        for number, (mine, known) in enumerate(
            itertools.zip_longest(ours, theirs), start=1
        )
        if mine != known
    ]
    wrong = [
        (number, mine, known)
        for number, mine, known in differing
        if known is not None and not _UNUSED.fullmatch(known)
    ]
    if wrong:
        number, mine, known = wrong[0]
        found = "nothing" if mine is None else repr(mine)
        remedy = "Leave out --vocab_file, or put your own words in place of [unusedN]."
        if has_records:
            remedy = (
                f"Make the records again with --vocab_file={model_vocab_file}, unless "
                "they were made with it, and leave out --vocab_file here. `python -m "
                "bert_tf vocab extend` adds words to weights and their vocabulary, for "
                "records made with the new one."
            )
        raise ValueError(
            f"{vocab_file} must have the tokens of {model_vocab_file}, which is next "
            f"to the weights, in the same order. Received: {len(wrong)} of "
            f"{len(theirs)} lines differ, first line {number}: {found} instead "
            f"of {known!r}. {remedy}"
        )
    own = [mine for _, mine, _ in differing if mine is not None]
    if not own:
        return []
    return [
        f"{vocab_file} has {len(own)} of your own words in place of [unusedN] or after "
        f"the words of {model_vocab_file}: {listed(own, most=_MAX_EXAMPLES)}."
    ]


def has_sha256(vocab_file: str, sha256: str) -> bool:
    """Whether a vocabulary has a checksum, in any of the ways to store it.

    Line ends, a byte order mark and blank lines at the end make no difference.

    Args:
      vocab_file: One token per line.
      sha256: Of a vocabulary file, hexadecimal.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`.
    """
    tokens = load_vocabulary(vocab_file)
    contents = [vocabulary_text(vocab_file)]
    for mark, line_end in itertools.product(("", "\ufeff"), ("\n", "\r\n")):
        text = mark + line_end.join(tokens)
        contents += [(text + line_end * count).encode() for count in range(3)]
    return any(hashlib.sha256(each).hexdigest() == sha256 for each in contents)
