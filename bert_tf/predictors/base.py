"""What all predictors share: a model, its vocabulary, and its logits."""

import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import TypedDict, Unpack

import keras
import numpy as np
import tensorflow as tf

from bert_tf.data.batches.example_batches import LabelledSequences, prediction_batches
from bert_tf.data.packing.layout import RowSettings
from bert_tf.data.tasks.classification import TextExample
from bert_tf.data.text.padded_arrays import text_list
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.data.text.vocabulary import check_size
from bert_tf.errors import NonFiniteError, RunError, shown
from bert_tf.evaluation.prediction import collect, compiled
from bert_tf.interop.model_kind import check_head
from bert_tf.interop.pretrained import from_pretrained
from bert_tf.interop.ready_model import find_model, load_tokenizer
from bert_tf.jobs.run.compute_path import describe_path, own_path
from bert_tf.launch import require_no_fork
from bert_tf.modeling.finetuning import FinetuningTask, TagTask
from bert_tf.modeling.models import backends_of, settings_of
from bert_tf.precision import choose_policy

_LOGGER = logging.getLogger(__name__)


class PredictorSettings(TypedDict, total=False):
    """Arguments of all predictors; see `Predictor`."""

    vocab_file: str
    do_lower_case: bool | None
    precision: str
    batch_size: int


def input_list(texts: str | Iterable[object], *, may_be_pairs: bool) -> list[object]:
    """The inputs as a list: a single text is one of them, not its characters.

    Raises:
      ValueError: if one is neither a text nor, where that is allowed, a pair of texts,
        or they are no list.
    """
    found = text_list(texts)
    for number, one in enumerate(found):
        if not isinstance(one, str) and not (may_be_pairs and is_pair(one)):
            raise ValueError(
                f"Input {number} must be a text{' or a pair of texts' * may_be_pairs}. "
                f"Received: {shown(one)}. Pass strings."
            )
    return found


def text_examples(texts: str | Iterable[str | tuple[str, str]]) -> list[TextExample]:
    """Texts, or pairs of them, without labels; see `input_list`."""
    inputs = input_list(texts, may_be_pairs=True)
    pairs = [(text, None) if isinstance(text, str) else text for text in inputs]
    return [TextExample(a, b, None, "") for a, b in pairs]


def is_pair(value: object) -> bool:
    """Whether a value is two texts, as a list or a tuple."""
    is_sequence = isinstance(value, list | tuple) and len(value) == 2
    return is_sequence and all(isinstance(part, str) for part in value)


def _log(notes: Sequence[str], level: int) -> None:
    for note in notes:
        _LOGGER.log(logging.WARNING if note.startswith("warning") else level, note)


class Predictor:
    """What all kinds share: a model, its vocabulary and its description.

    Attributes:
      kind: The task that task.json of a model names; fill-mask for a pre-trained model,
        which has no such file. Empty: any model will do.
      batch_size: Rows that are computed at once.
      description: The content of task.json next to the weights; empty without it.
    """

    kind = ""

    def __init__(
        self,
        model_dir: str,
        *,
        vocab_file: str = "",
        do_lower_case: bool | None = None,
        precision: str = "",
        batch_size: int = 32,
    ) -> None:
        """Finds the files of the model.

        Args:
          model_dir: The output_dir of a training, or any weights with their config.
          vocab_file: Default: that next to the weights.
          do_lower_case: Default: from the files next to the weights, else true if the
            vocabulary is uncased.
          precision: See the flag of the training scripts.
          batch_size: Rows that are computed at once.

        Raises:
          FileNotFoundError, ValueError, RunError: if something is missing or damaged.
        """
        require_no_fork()
        self.path = model_dir
        self.batch_size = batch_size
        given = {"vocab_file": vocab_file, "do_lower_case": do_lower_case}
        self._files = find_model(model_dir, self.kind, **given)
        self.description = self._files.description
        self._policy = choose_policy(precision, "")
        self._tokenizer = load_tokenizer(model_dir, **given)
        self._stack = contextlib.ExitStack()

    def _load(self, task: str, **settings: object) -> keras.Model:
        path = own_path()
        settings |= {"policy": self._policy, "allow_fused": True}
        try:
            model = from_pretrained(self.path, task, **settings)
        except (RunError, ValueError):
            if self.kind:
                check_head(self.path, self.kind)
            raise
        config = settings_of(model).config
        self._type_vocab_size = config.type_vocab_size
        _log(check_size(self._files.vocab_file, config.vocab_size), logging.INFO)
        _log(self._policy.unused_entries(), logging.INFO)
        backends = backends_of(model)
        is_fused = backends.fused_dtype is not None
        if not is_fused and not tf.config.get_visible_devices("GPU"):
            _LOGGER.warning(describe_path(backends, path))
        return model

    def _compile(self, task: FinetuningTask) -> None:
        """Prepacks the weights once for all calls."""
        self._task = task
        self._graph = self._stack.enter_context(compiled(task))

    @property
    def num_traces(self) -> int:
        """How often the model's graph was traced."""
        return self._graph.experimental_get_tracing_count()

    def _logits(
        self, sequences: TokenSequences, *, of_tokens: bool, width: int = 0
    ) -> np.ndarray:
        """[T, C] or [n, C] float32; rows have `width` or `max_seq_length` tokens.

        Raises:
          NonFiniteError: if one is not a finite number.
          ValueError: if the model has no segment for a pair's second text.
          RunError: in a fork; see `require_no_fork`.
        """
        require_no_fork()
        if not len(sequences):
            return np.zeros((0, self._task.num_outputs), np.float32)
        sequences.check_segments(self._type_vocab_size)
        settings = RowSettings(width or self.max_seq_length, is_packed=True)
        batches = prediction_batches(
            LabelledSequences(sequences), settings, batch_size=self.batch_size
        )
        count = len(sequences.input_ids) if of_tokens else len(sequences)
        shape = (count, self._task.num_outputs)
        return self._finite(collect(self._graph, batches, shape, of_tokens=of_tokens))

    def _finite(self, values: np.ndarray) -> np.ndarray:
        """The values, which must be finite; see `_logits`."""
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"{self.path}: the model computes NaN or infinity: its training "
                "diverged. Use another checkpoint."
            )
        return values


class HeadPredictor(Predictor):
    """A model with the head of a fine-tuning.

    Attributes:
      model_task: The task of `from_pretrained` that builds the model.
      task_class: Its logits and losses.
      usual_length: Tokens of a row where task.json does not say; None: as many as the
        model has positions.
      max_seq_length: Tokens of a row.
    """

    model_task = "classifier"
    task_class: type[FinetuningTask]
    usual_length: int | None = None

    def __init__(self, model_dir: str, **settings: Unpack[PredictorSettings]) -> None:
        """See `Predictor`."""
        super().__init__(model_dir, **settings)
        of_tokens = {"of_tokens": True} if self.task_class is TagTask else {}
        model = self._load(self.model_task, **of_tokens)
        most = self._files.config.max_position_embeddings
        usual = min(self.usual_length or most, most)
        length = self.description.get("max_seq_length", usual)
        self.max_seq_length = self._files.require_length(length)
        self._compile(self.task_class(model))
