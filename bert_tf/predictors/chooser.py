"""A predictor of the right one of several endings."""

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.special

from bert_tf.data.tasks.choices import Question, encode_questions
from bert_tf.errors import shown
from bert_tf.interop.classifier_labels import CHOOSE
from bert_tf.modeling.finetuning import ChoiceTask
from bert_tf.predictors.base import HeadPredictor


class Chooser(HeadPredictor):
    """Predicts which of several endings is right."""

    kind = CHOOSE
    task_class = ChoiceTask

    def __call__(
        self, questions: Iterable[Question | tuple[str, Sequence[str]]]
    ) -> list[dict[str, object]]:
        """Predicts.

        Args:
          questions: A context and its endings each, two or more.

        Returns:
          For each `choice`, the number of the likeliest ending from 0, `ending`, and
          the `probabilities` of all.

        Raises:
          ValueError: if one has fewer than two endings.
        """
        asked = [
            one if isinstance(one, Question) else Question(one[0], "", _endings(one[1]))
            for one in questions
        ]
        for one in asked:
            if len(one.endings) < 2:
                raise ValueError(
                    "A question must have two or more endings. Received: "
                    f"{shown(one.endings)}. Pass pairs (context, endings)."
                )
        if not asked:
            return []
        sequences = encode_questions(asked, self._tokenizer, self.max_seq_length)
        scores = self._logits(sequences, of_tokens=False)[:, 0].astype(np.float64)
        ends = np.cumsum([len(one.endings) for one in asked])
        results = []
        for one, own in zip(asked, np.split(scores, ends[:-1]), strict=True):
            best = int(own.argmax())
            odds = scipy.special.softmax(own).tolist()
            result = {"choice": best, "ending": one.endings[best]}
            results.append(result | {"probabilities": odds})
        return results


def _endings(value: str | Sequence[str]) -> tuple[str, ...]:
    """The endings of a question; a text alone is one, not its characters."""
    return (value,) if isinstance(value, str) else tuple(value)
