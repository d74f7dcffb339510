"""Predictors of classes, of answers, and of masked words."""

import functools
import logging
from collections.abc import Iterable
from typing import Unpack

import numpy as np
import scipy.special
import tensorflow as tf

from bert_tf.data.packing.layout import lay_out
from bert_tf.data.tasks.classification import encode_examples
from bert_tf.data.tasks.squad_files import SquadExample
from bert_tf.data.tasks.squad_windows import WindowSettings, build_windows
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.data.text.vocabulary import SPECIAL_TOKENS, require_mask
from bert_tf.errors import shown
from bert_tf.evaluation.squad import (
    AnswerSettings,
    SquadPredictions,
    predict_answers,
)
from bert_tf.interop.classifier_labels import (
    CLASSIFY,
    MULTI_LABEL,
    REGRESSION,
    read_head,
)
from bert_tf.interop.model_kind import FILL_MASK, SQUAD
from bert_tf.interop.weight_files import find_source
from bert_tf.jobs.class_names import takes_pairs
from bert_tf.launch import require_no_fork
from bert_tf.modeling.finetuning import ClassTask, SpanTask
from bert_tf.modeling.models import model_outputs, settings_of
from bert_tf.predictors.base import (
    HeadPredictor,
    Predictor,
    PredictorSettings,
    input_list,
    is_pair,
    text_examples,
)

_LOGGER = logging.getLogger(__name__)


class Classifier(HeadPredictor):
    """Predicts the class of a text, or a number.

    Attributes:
      takes_pairs: Whether the model was trained on two texts; None if task.json does
        not say.
    """

    kind = CLASSIFY
    task_class = ClassTask
    usual_length = 128

    def __init__(self, model_dir: str, **settings: Unpack[PredictorSettings]) -> None:
        """See `Predictor`."""
        super().__init__(model_dir, **settings)
        self._head = read_head(find_source(self.path), self._task.num_outputs)
        if self._head.problem_type == REGRESSION and self._head.num_outputs > 1:
            raise ValueError(
                f"{self._head.path}: a model that predicts numbers must have one "
                f"output. Received: {self._head.num_outputs} outputs, problem_type="
                f"{REGRESSION}. Predict with the program that trained it."
            )
        self.takes_pairs = takes_pairs(self.description)
        self._warned_of_single = False
        numbers = list(map(str, range(self._head.num_outputs)))
        self.label_names = list(self._head.names) or numbers
        if not self._head.names and len(numbers) > 1:
            _LOGGER.warning(
                f"warning: no file names the {len(numbers)} classes of the model's "
                f"head: they are called {', '.join(numbers)}."
            )

    def __call__(
        self, texts: str | Iterable[str | tuple[str, str]]
    ) -> list[dict[str, object]]:
        """Predicts.

        Args:
          texts: Texts or pairs of them, or one text.

        Returns:
          For each the likeliest `label` and `probabilities` by label, which sum to 1;
          where a text may have any number of labels, instead of `label` `labels`, those
          with a probability above a half; of a model with one output, `value`.

        Raises:
          ValueError: if there is a pair, and the model was trained on single texts.
        """
        if not (examples := text_examples(texts)):
            return []
        for number, one in enumerate(examples):
            self.check(one.text_b, f"Input {number}: ")
        sequences = encode_examples(examples, self._tokenizer, self.max_seq_length)
        logits = self._logits(sequences, of_tokens=False)
        if self._task.num_outputs == 1:
            return [{"value": float(value)} for value in logits[:, 0]]
        names, logits = self.label_names, logits.astype(np.float64)
        is_multi_label = self._head.problem_type == MULTI_LABEL
        if is_multi_label:
            probabilities = scipy.special.expit(logits)
        else:
            probabilities = scipy.special.softmax(logits, axis=1)
        results = []
        for row in probabilities:
            odds = dict(zip(names, map(float, row), strict=True))
            if is_multi_label:
                result = {"labels": [name for name in names if odds[name] > 0.5]}
            else:
                result = {"label": names[int(np.argmax(row))]}
            results.append({**result, "probabilities": odds})
        return results

    def check(self, text_b: str | None, location: str = "") -> None:
        """Refuses a second text that the model was not trained for.

        Args:
          text_b: The second text, if there is one. The first input that lacks it is
            reported, if the model was trained on pairs.
          location: For messages.

        Raises:
          ValueError: see above.
        """
        if text_b and self.takes_pairs is False:
            raise ValueError(
                f"{location}the model was trained on single texts, so there must be no "
                f"second text (text_b). Received: {shown(text_b)}. Pass each text as "
                f"an input, or a model that was trained on pairs. Model: {self.path}."
            )
        if not text_b and self.takes_pairs and not self._warned_of_single:
            self._warned_of_single = True
            _LOGGER.warning(
                "warning: %s%s was trained on pairs of texts; there is an input "
                "without a second text (text_b).",
                location,
                self.path,
            )


class QuestionAnswerer(HeadPredictor):
    """Finds the answers to questions in their contexts."""

    kind = SQUAD
    model_task = "squad"
    task_class = SpanTask
    usual_length = 384

    def __init__(self, model_dir: str, **settings: Unpack[PredictorSettings]) -> None:
        """See `Predictor`."""
        super().__init__(model_dir, **settings)
        known, length = self.description, self.max_seq_length
        self._windows = WindowSettings(
            length,
            known.get("doc_stride", 128),
            known.get("max_query_length", min(64, length // 2)),
        )
        self._answers = AnswerSettings(
            n_best_size=known.get("n_best_size", 20),
            max_answer_length=known.get("max_answer_length", 30),
            version_2_with_negative=known.get("version_2_with_negative", False),
            null_score_diff_threshold=known.get("null_score_diff_threshold", 0.0),
        )

    def __call__(
        self, questions: Iterable[tuple[str, str]] | tuple[str, str]
    ) -> list[dict[str, object]]:
        """Answers.

        Args:
          questions: Questions and their contexts, or one pair of them.

        Returns:
          For each `answer`, a piece of the context or "" for none, and `probability`
          among the best answers.

        Raises:
          ValueError: if a question has no context.
        """
        pairs = input_list(questions, may_be_pairs=True)
        pairs = [pairs] if is_pair(pairs) else pairs
        if not pairs:
            return []
        if alone := [one for one in pairs if isinstance(one, str)]:
            raise ValueError(
                f"A question must have a context. Received: {shown(alone[0])}. Pass "
                "pairs (question, context)."
            )
        examples = [
            SquadExample(str(number), question, context)
            for number, (question, context) in enumerate(pairs)
        ]
        windows = build_windows(examples, self._tokenizer, self._windows)
        logits = self._logits(windows.sequences, of_tokens=True)
        found = predict_answers(
            examples, windows, logits[:, 0], logits[:, 1], self._answers
        )
        return [self._result(found, example.question_id) for example in examples]

    def _result(self, found: SquadPredictions, question_id: str) -> dict[str, object]:
        answer = found.answers[question_id]
        probability = sum(
            entry["probability"]
            for entry in found.nbest[question_id]
            if entry["text"] == answer
        )
        return {"answer": answer, "probability": float(probability)}


class MaskFiller(Predictor):
    """Predicts the words for [MASK]."""

    kind = FILL_MASK

    def __init__(self, model_dir: str, **settings: Unpack[PredictorSettings]) -> None:
        """See `Predictor`."""
        super().__init__(model_dir, **settings)
        new = ("cls/seq_relationship/*", "bert/pooler/*")
        self._model = self._load("pretraining", new=new, seeded_dropout=True)
        config = settings_of(self._model).config
        self.max_seq_length = config.max_position_embeddings
        # A partial, without warnings of TensorFlow: see `evaluation.metrics`.
        logits = functools.partial(self._masked_logits)
        self._graph = tf.function(logits, autograph=False, reduce_retracing=True)

    def __call__(
        self, texts: str | Iterable[str], num_words: int = 5
    ) -> list[list[list[dict[str, object]]]]:
        """Predicts.

        Args:
          texts: Each with one [MASK] or several; or one such text.
          num_words: How many words for each.

        Returns:
          For each text, for each [MASK], the likeliest words: `token`, `probability`.

        Raises:
          ValueError: if a text has no [MASK], or is too long.
        """
        encoded = [self._encode(text) for text in input_list(texts, may_be_pairs=False)]
        results = []
        for first in range(0, len(encoded), self.batch_size):
            results += self._fill(encoded[first : first + self.batch_size], num_words)
        return results

    def check(self, text: str) -> None:
        """Raises a ValueError if a text has no [MASK], or is too long."""
        self._encode(text)

    def _encode(self, text: str) -> list[int]:
        require_mask(text)
        special, parts = self._tokenizer.special, text.split(SPECIAL_TOKENS.mask)
        ids = [special.cls]
        for number, part in enumerate(self._tokenizer.encode(parts)):
            ids += [special.mask] * (number > 0) + part
        ids.append(special.sep)
        if len(ids) > self.max_seq_length:
            raise ValueError(
                f"A text must have at most {self.max_seq_length} tokens. Received: "
                f"{text[:80]!r} of {len(ids)} tokens. Shorten it."
            )
        return ids

    def _fill(
        self, encoded: list[list[int]], num_words: int
    ) -> list[list[list[dict[str, object]]]]:
        require_no_fork()
        sequences = TokenSequences.join((ids, [0] * len(ids)) for ids in encoded)
        masks = [
            np.flatnonzero(np.equal(i, self._tokenizer.special.mask)) for i in encoded
        ]
        length = int(sequences.lengths.max())
        features = lay_out(sequences, np.arange(len(encoded))[:, None], length)
        positions = np.zeros((len(encoded), max(map(len, masks))), np.int32)
        for row, places in zip(positions, masks, strict=True):
            row[: len(places)] = places
        features["masked_lm_positions"] = positions
        tensors = {n: tf.convert_to_tensor(x) for n, x in features.items()}
        probabilities = self._finite(self._graph(tensors).numpy())
        return [
            [self._best(row[k], num_words) for k in range(len(places))]
            for row, places in zip(probabilities, masks, strict=True)
        ]

    def _masked_logits(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Probabilities [B, P, V]."""
        logits = model_outputs(self._model, features, False)["masked_lm_logits"]
        return tf.nn.softmax(logits)

    def _best(self, row: np.ndarray, num_words: int) -> list[dict[str, object]]:
        words = self._tokenizer.inverse_vocab
        known = row[: len(words)]  # Tables may be padded.
        chosen = np.argsort(-known, kind="stable")[:num_words]
        return [{"token": words[i], "probability": float(row[i])} for i in chosen]
