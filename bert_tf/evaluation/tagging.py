"""Scores of tagged words: entities as conlleval counts them, and the file of tags."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_tf.files import write_whole


class Entity(NamedTuple):
    """Words that have a name of one type.

    Attributes:
      type: What follows B- and I-; empty for plain B and I.
      first: Number of the first word.
      end: Number after the last one.
    """

    type: str
    first: int
    end: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence.

    A tag I (or E) continues an entity if a B or I of the same type is before it, and
    else begins one: so BIO, IOB1 and BIOES are read. S is an entity by itself.

    Source: conlleval (Tjong Kim Sang and De Meulder 2003), as seqeval computes it.
    """
    found: list[Entity] = []
    before = ("O", "")
    for number, tag in enumerate(tags):
        prefix, kind = tag[0], tag[2:]
        if prefix in "IE" and before[0] in ("B", "I") and before[1] == kind:
            found[-1] = found[-1]._replace(end=number + 1)
        elif prefix != "O":
            found.append(Entity(kind, number, number + 1))
        before = (prefix, kind)
    return found


def entity_metrics(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Precision, recall and F1 of entities: type, first and last word must be right.

    Args:
      true: The tags of each sentence.
      predicted: The same, of the model.

    Returns:
      `precision`, `recall` and `f1` over all entities, and `f1_<type>` of each type;
      0 where there is no entity.
    """
    sides = [
        {
            (number, *entity)
            for number, tags in enumerate(each)
            for entity in entities(tags)
        }
        for each in (true, predicted)
    ]
    metrics = _scores(*sides)
    for name in sorted({entity[1] for side in sides for entity in side} - {""}):
        of_type = ({each for each in side if each[1] == name} for side in sides)
        metrics[f"f1_{name}"] = _scores(*of_type)["f1"]
    return metrics


def _scores(true: set, predicted: set) -> dict[str, float]:
    hits = len(true & predicted)
    return {
        "precision": hits / len(predicted) if hits else 0.0,
        "recall": hits / len(true) if hits else 0.0,
        "f1": 2.0 * hits / (len(true) + len(predicted)) if hits else 0.0,
    }


def split_tags(
    numbers: np.ndarray, lengths: Sequence[int], names: Sequence[str]
) -> list[list[str]]:
    """The tags of all words, [n] numbers, as those of sentences of so many words."""
    found = [names[number] for number in numbers.tolist()]
    ends = np.cumsum(lengths).tolist()
    return [found[end - size : end] for end, size in zip(ends, lengths, strict=True)]


def write_tags(
    path: str, words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]
) -> None:
    """Writes a word, a tab and its tag per line, a blank line after each sentence."""
    pairs = zip(words, tags, strict=True)
    lines = ("\n".join(map("\t".join, zip(*pair, strict=True))) for pair in pairs)
    write_whole(path, "".join(f"{each}\n\n" for each in lines))
