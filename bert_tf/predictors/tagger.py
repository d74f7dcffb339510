"""A predictor of tags of words, and of the entities that they make."""

import re
from collections.abc import Iterable, Sequence
from typing import Unpack

import numpy as np
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_tf.data.tasks.conll import Sentence, encode_sentences, is_entity_tag
from bert_tf.data.text.padded_arrays import text_list
from bert_tf.errors import shown
from bert_tf.evaluation.tagging import entities, split_tags
from bert_tf.interop.classifier_labels import TAG, default_names, read_head
from bert_tf.interop.weight_files import find_source
from bert_tf.modeling.finetuning import TagTask
from bert_tf.predictors.base import HeadPredictor, PredictorSettings

# Words, and marks one by one, as files of tagged words separate them; letters of many
# scripts have combining marks, which \w does not match.
_SPLITTER = BertPreTokenizer()
_SURROGATES = re.compile("[\ud800-\udfff]")


class Tagger(HeadPredictor):
    """Predicts a tag for each word, and the entities that the tags make."""

    kind = TAG
    task_class = TagTask

    def __init__(self, model_dir: str, **settings: Unpack[PredictorSettings]) -> None:
        """See `Predictor`."""
        super().__init__(model_dir, **settings)
        count = self._task.num_outputs
        head = read_head(find_source(self.path), count)
        self.label_names = list(head.names or default_names(count))

    def __call__(
        self, texts: str | Iterable[str | Sequence[str]]
    ) -> list[dict[str, object]]:
        """Predicts.

        Args:
          texts: Texts, which are split into words and marks, or lists of words; or one
            text. What is longer than the model's rows is split between words.

        Returns:
          For each `words`, `tags` and, if the tags are those of entities, `entities`:
          `type`, `text`, and `start` and `end`, its characters in the text (of words,
          in the text with single blanks between them).

        Raises:
          ValueError: if one is neither a text nor a list of words.
        """
        found = [_words(one) for one in text_list(texts)]
        full = [Sentence(words, [], "") for _, words, _ in found if words]
        numbers = np.zeros(0, int)
        if full:
            encoded = encode_sentences(full, self._tokenizer, self.max_seq_length)
            logits = self._logits(encoded.sequences, of_tokens=True)
            numbers = logits[encoded.tags >= 0].argmax(axis=1)
        lengths = [len(words) for _, words, _ in found]
        tags = split_tags(numbers, lengths, self.label_names)
        return [self._result(*one, own) for one, own in zip(found, tags, strict=True)]

    def _result(
        self, text: str, words: list[str], starts: list[int], tags: list[str]
    ) -> dict[str, object]:
        result: dict[str, object] = {"words": words, "tags": tags}
        if not all(map(is_entity_tag, self.label_names)):
            return result
        spans = [
            (
                each.type,
                starts[each.first],
                starts[each.end - 1] + len(words[each.end - 1]),
            )
            for each in entities(tags)
        ]
        result["entities"] = [
            {"type": kind, "text": text[start:end], "start": start, "end": end}
            for kind, start, end in spans
        ]
        return result


def _words(value: object) -> tuple[str, list[str], list[int]]:
    """A text, its words, and where they begin."""
    if isinstance(value, str):
        found = _SPLITTER.pre_tokenize_str(_SURROGATES.sub("\ufffd", value))
        spans = [span for _, span in found]
        return value, [value[a:b] for a, b in spans], [a for a, _ in spans]
    is_list = isinstance(value, list | tuple)
    if not is_list or not all(isinstance(word, str) and word for word in value):
        raise ValueError(
            "An input must be a text, or a list of words that are not empty. Received: "
            f"{shown(value)}. Pass strings."
        )
    lengths = np.array([len(word) + 1 for word in value], int)
    return " ".join(value), list(value), (np.cumsum(lengths) - lengths).tolist()
