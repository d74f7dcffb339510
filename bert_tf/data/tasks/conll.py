"""Files of tagged words (CoNLL): a line for each word, a blank one after a sentence.

Columns are separated by tabs, or else by spaces: the word is the first, its tag the
last. Lines of -DOCSTART- are skipped, as by conlleval, and the comments (`# ...`) that
CoNLL-U has before a sentence.
"""

import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_tf.config.task_settings import CONLL
from bert_tf.data.tasks.classification import (
    DEV_NAMES,
    ClassificationTask,
    SplitFile,
    require_examples,
    require_one_dev_file,
)
from bert_tf.data.tasks.custom_task import check_classes
from bert_tf.data.tasks.label_names import doubtful_names, quoted
from bert_tf.data.tasks.row_labels import ColumnNames, Kind, class_number
from bert_tf.data.tasks.tables import numbered_lines
from bert_tf.data.text.token_sequences import TokenSequences, pair_sequence
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.errors import counted
from bert_tf.files import check_regular, placeholder, without_gz

_LOGGER = logging.getLogger(__name__)

OUTSIDE = "O"
_DOCUMENT = "-DOCSTART-"
# Names of CoNLL 2003's files, and of other published sets.
_NAMES = {
    "train": ("train.conll", "train.txt", "eng.train"),
    "dev": (
        *(f"{name}.{ending}" for name in DEV_NAMES for ending in ("conll", "txt")),
        "eng.testa",
    ),
    "test": ("test.conll", "test.txt", "eng.testb"),
}
_ENTITY_TAG = re.compile(r"O|[BIES](-.+)?", re.DOTALL)
NO_TAG = -1
_LINES_TO_JUDGE = 1000


class TaggedSequences(NamedTuple):
    """Sentences as tokens.

    Attributes:
      sequences: With [CLS] and [SEP], T tokens in all.
      tags: [T] int32: the tag of the first piece of a word, -1 for all else.
      notes: Sentences about what was split or cut, for the log.
    """

    sequences: TokenSequences
    tags: np.ndarray
    notes: list[str]


class Sentence(NamedTuple):
    """Words, and their tags.

    Attributes:
      words: At least one.
      tags: Names, or numbers, of their tags; none if they are not read.
      location: File and line of the first word, for messages.
    """

    words: list[str]
    tags: list
    location: str


def conll_task(
    data_dir: str, splits: Sequence[str], label_names: Sequence[str] = ()
) -> ClassificationTask:
    """The task of files of tagged words.

    Args:
      data_dir: Their folder.
      splits: The splits to read; the tags are those that occur in train.
      label_names: The tags, if they are known.

    Returns:
      The task, for `read_sentences`.

    Raises:
      FileNotFoundError, ValueError: if a file is missing or not valid.
    """
    columns = ColumnNames("word", label="tag")
    files = {
        split: tuple(
            SplitFile(each + z, columns) for each in names for z in ("", ".gz")
        )
        for split, names in _NAMES.items()
    }
    task = ClassificationTask(CONLL, (), files, kind=Kind.TAGS)
    if "dev" in splits:
        require_one_dev_file(data_dir, (file.name for file in files["dev"]))
    for split in splits:
        task.find_file(data_dir, split)
    notes: list[str] = []
    if not label_names:
        path = _path(task, data_dir, "train")
        # `read_sentences` reads the file again, and reports what is skipped.
        sentences = read_conll(path, reports=False)
        found = {tag for each in sentences for tag in each.tags}
        check_classes(path, "tag", sorted(found))
        label_names = sorted(found, key=lambda tag: (tag != OUTSIDE, tag))
        notes = [f"warning: {path}: {each}." for each in doubtful_names(found)]
    names = tuple(label_names)
    if all(map(is_entity_tag, names)):
        metrics = ("f1", "precision", "recall", "accuracy")
    else:
        metrics = ("accuracy",)
        notes.append(
            "The tags are not those of entities (O, B-..., I-...): they are scored by "
            "accuracy alone."
        )
    return ClassificationTask(
        CONLL, names, files, metrics, notes=tuple(notes), kind=Kind.TAGS
    )


def has_conll_name(path: str) -> bool:
    """Whether the name of a file says that it has tagged words: .conll, eng.testb."""
    name = without_gz(os.path.basename(path).lower())
    published = (each for names in _NAMES.values() for each in names)
    return name.endswith(".conll") or name in published and not name.endswith(".txt")


def is_conll(path: str, tags: Collection[str]) -> bool:
    """Whether a file has tagged words, by its name or by its first lines.

    By lines it has, if most of them have as many columns as the first one, and one of
    the tags in the last. Marks do not count: lines of plain text end in them, too.

    Raises:
      ValueError: see `numbered_lines`.
    """
    if has_conll_name(path):
        return True
    known = {tag for tag in tags if any(map(str.isalnum, tag))}
    width, num_lines, num_tagged = 0, 0, 0
    for _, line in itertools.islice(numbered_lines(path), _LINES_TO_JUDGE):
        fields = _fields(line)
        if not any(fields) or line.startswith(("#", _DOCUMENT)):
            continue
        width, num_lines = width or len(fields), num_lines + 1
        num_tagged += len(fields) == width > 1 and fields[-1] in known
    return 2 * num_tagged > num_lines


def is_entity_tag(tag: str) -> bool:
    """Whether a tag is O, or B, I, E or S with a type or without."""
    return bool(_ENTITY_TAG.fullmatch(tag))


def _path(task: ClassificationTask, data_dir: str, split: str) -> str:
    folder, file = task.find_file(data_dir, split)
    return os.path.join(folder, file.name)


def read_sentences(
    task: ClassificationTask, data_dir: str, split: str, *, needs_labels: bool = True
) -> list[Sentence]:
    """Reads the sentences of a split, with the numbers of their tags.

    Args:
      task: The result of `conll_task`, or with tags of a model's head.
      data_dir: Their folder.
      split: train, dev or test.
      needs_labels: Whether to read the tags.

    Raises:
      FileNotFoundError, ValueError: if the file is missing or not valid, or a tag is
        not one of the task; the message names file and line.
    """
    path, numbers, sentences = _path(task, data_dir, split), task.numbers, []
    for each in read_conll(path, needs_labels=needs_labels):
        tags = [
            class_number(each.location, "tag", tag, numbers, task.label_names)
            for tag in each.tags
        ]
        sentences.append(each._replace(tags=tags))
    require_examples(sentences, path, task, split)
    return sentences


def read_conll(
    path: str, *, needs_labels: bool = True, reports: bool = True
) -> Iterator[Sentence]:
    """Streams the sentences of a file.

    Args:
      path: The file, which may be a .gz.
      needs_labels: Whether to read the tags; without, a line may be a word alone.
      reports: Whether to log how many comments are skipped.

    Raises:
      ValueError: if a line has another number of columns than those before it, or an
        empty word or tag, or is not UTF-8; the message names file and line.
    """
    check_regular(path)
    if "LFS" in (found := placeholder(path)):  # Its lines have two columns, too.
        raise ValueError(f"{path} holds {found}. Fetch the file.")
    usual, num_comments = _usual_columns(path), 0
    width, words, tags, first = 0, [], [], ""
    for number, line in itertools.chain(numbered_lines(path), [(0, "")]):
        location = f"{path}, line {number}"
        fields = _fields(line)
        if not any(fields) or fields[0] == _DOCUMENT:
            if words:
                yield Sentence(words, tags, first)
            words, tags = [], []
            continue
        # A line with the columns of the others has the word #.
        is_comment = line.startswith("#") and ("\t" in line, len(fields)) != usual
        if is_comment and usual and not words:
            num_comments += 1
            continue
        _check_fields(fields, width, location, needs_labels=needs_labels)
        width, first = len(fields), first if words else location
        words.append(fields[0])
        tags += fields[-1:] if needs_labels else []
    if num_comments and reports:
        _LOGGER.warning("%s: skipped %d comments (#).", path, num_comments)


def _fields(line: str) -> list[str]:
    has_tabs = "\t" in line
    fields = line.split("\t") if has_tabs else line.strip(" ").split(" ")
    return [field.strip() for field in fields if field or has_tabs]


def _usual_columns(path: str) -> tuple[bool, int] | None:
    """Whether tabs separate the columns, and how many there are; None without words."""
    for _, line in numbered_lines(path):
        fields = _fields(line)
        if any(fields) and not line.startswith(("#", _DOCUMENT)):
            return "\t" in line, len(fields)
    return None


def _check_fields(
    fields: list[str], width: int, location: str, *, needs_labels: bool
) -> None:
    least = 1 + needs_labels
    if len(fields) < least or (width and len(fields) != width):
        wanted = f"{width} columns, as the lines before it" if width else "2 columns"
        raise ValueError(
            f"{location}: a line must have {wanted}: the word first, its tag last, "
            f"with tabs or spaces between. Received: {len(fields)} "
            f"({quoted(' '.join(fields))}). Correct the line."
        )
    if not fields[0] or (needs_labels and not fields[-1]):
        raise ValueError(
            f"{location}: a word and a tag must not be empty. Received: "
            f"{quoted(fields)}. Correct or remove the line."
        )


def tag_notes(task: ClassificationTask, sentences: Iterable[Sentence]) -> list[str]:
    """Sentences about tags that look like mistakes."""
    names, begun, pairs = task.label_names, 0, Counter()
    for sentence in sentences:
        tags = [OUTSIDE, *(names[number] for number in sentence.tags)]
        pairs.update(zip(tags, tags[1:], strict=False))
    for (before, tag), count in pairs.items():
        if task.metrics[0] == "f1" and tag[0] in "IE":
            is_inside = before[0] in "BI" and before[1:] == tag[1:]
            begun += 0 if is_inside else count
    if not begun:
        return []
    return [f"{begun} entities begin with I- or E- instead of B-, and are counted too"]


def encode_sentences(
    sentences: Sequence[Sentence], tokenizer: WordPieceTokenizer, max_seq_length: int
) -> TaggedSequences:
    """Encodes words as [CLS] words [SEP]; the first piece of a word has its tag.

    A sentence that is too long becomes several sequences, cut between words, so that no
    tag is lost. A word without pieces, such as a control character, is [UNK].

    Args:
      sentences: n sentences; those without tags have the tag 0 for each word.
      tokenizer: The model's tokenizer.
      max_seq_length: Maximum number of tokens of a sequence, at least 3. A single word
        with more is cut.
    """
    _, unk, cls_id, sep_id, _ = tokenizer.special
    room, sequences, tags = max_seq_length - 2, [], []
    num_long = num_cut = 0

    def add(ids: list[int], labels: list[int]) -> None:
        sequences.append(pair_sequence(ids, None, cls_id, sep_id))
        tags.extend([NO_TAG, *labels, NO_TAG])

    for sentence in sentences:
        numbers = sentence.tags or [0] * len(sentence.words)
        ids, labels, before = [], [], len(sequences)
        for found, tag in zip(tokenizer.encode(sentence.words), numbers, strict=True):
            num_cut += len(found) > room
            pieces = found[:room] or [unk]
            if len(ids) + len(pieces) > room:
                add(ids, labels)
                ids, labels = [], []
            ids += pieces
            labels += [tag, *[NO_TAG] * (len(pieces) - 1)]
        add(ids, labels)
        num_long += len(sequences) - before > 1
    notes = []
    if num_long:
        notes.append(
            f"{num_long} of {len(sentences)} sentences are longer than max_seq_length="
            f"{max_seq_length}, and are split between words: {len(sequences)} sequences"
        )
    if num_cut:
        notes.append(f"cut {counted(num_cut, 'word')} of more than {room} WordPieces")
    joined = TokenSequences.join(sequences)
    return TaggedSequences(joined, np.asarray(tags, np.int32), notes)
