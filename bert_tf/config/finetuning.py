"""Settings of fine-tuning, in groups; `flags` makes one flag of each field."""

import dataclasses
import math
import os
from typing import ClassVar, Self

from bert_tf.config import checks
from bert_tf.config.run import (
    OptimizerConfig,
    RunBatchConfig,
    RunConfig,
    RunFilesConfig,
    RunTrainingConfig,
)
from bert_tf.config.task_settings import XNLI_LANGUAGE, require_task_settings

# A value of class_weights.
BALANCED = "balanced"
_LARGEST_WEIGHT = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningFilesConfig(RunFilesConfig):
    """Initial weights, architecture and output.

    Attributes:
      vocab_file: The model's vocabulary; default: vocab.txt or tokenizer.json next to
        init_checkpoint, or vocab.txt in output_dir.
    """

    vocab_file: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningBatchConfig(RunBatchConfig):
    """Batch sizes and sequence length.

    Attributes:
      train_batch_size: Examples per micro-batch on each worker.
      eval_batch_size: Examples per evaluation batch.
      predict_batch_size: Examples per prediction batch.
      max_seq_length: Tokens per row; longer texts are truncated or split into windows.
        Default: 384 for SQuAD, 128 for classification.
      pack_sequences: Pack several examples into one row where they fit; same results,
        less padding.
    """

    predict_batch_size: int = 8
    max_seq_length: int | None = None
    pack_sequences: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_positive(self, "predict_batch_size")
        if self.max_seq_length is not None:
            checks.require(
                self.max_seq_length >= 8,
                "max_seq_length",
                "be at least 8",
                self.max_seq_length,
            )
            checks.require_limits(self, "max_seq_length")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningOptimizerConfig(OptimizerConfig):
    """The optimizer and its learning rate.

    Attributes:
      learning_rate: Peak learning rate.
      num_train_epochs: How often each example is used for training.
      num_train_steps: Optimizer steps of the whole run, instead of num_train_epochs.
      warmup_proportion: Fraction of all steps used for warm-up.
      frozen_layers: Train neither the embeddings nor so many of the lowest encoder
        layers; 0: the embeddings alone. Default: all weights are trained.
      layerwise_lr_decay: Factor of the learning rate from each layer to the one below
        it, in (0, 1]; head and pooler have learning_rate.
    """

    optimizer_type: str = "adam"
    learning_rate: float = 5e-5
    scale_learning_rate: bool = False
    num_train_steps: int | None = None
    num_train_epochs: float = 3.0
    warmup_proportion: float = 0.1
    frozen_layers: int | None = None
    layerwise_lr_decay: float = 1.0

    def __post_init__(self) -> None:
        """Checks each field; the rest when the number of steps is known."""
        checks.require_not_negative(self, "frozen_layers")
        decay = self.layerwise_lr_decay
        is_valid = 0 < decay <= 1
        checks.require(
            is_valid, "layerwise_lr_decay", "be greater than 0 and at most 1", decay
        )
        checks.require_positive(self, "num_train_epochs", "num_train_steps")
        steps = self.num_train_steps
        if steps is not None:
            is_whole = steps == int(steps)
            checks.require(is_whole, "num_train_steps", "be a whole number", steps)
        super().__post_init__()

    def for_examples(self, num_examples: int, examples_per_step: int) -> Self:
        """These settings with the number of steps filled in."""
        if self.num_train_steps is not None:
            return dataclasses.replace(self, num_train_steps=int(self.num_train_steps))
        if not num_examples:  # Without training, its flags must not fail the run.
            warmup = {"num_warmup_steps": 0, "start_warmup_step": 0}
            return dataclasses.replace(self, num_train_steps=1, **warmup)
        steps = int(num_examples / examples_per_step * self.num_train_epochs)
        return dataclasses.replace(self, num_train_steps=max(1, steps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningTrainingConfig(RunTrainingConfig):
    """What to run, and how micro-batches form a step.

    Attributes:
      do_predict: Predict, and write the predictions.
      evaluate_each_epoch: Evaluate after each epoch and keep the best checkpoint in
        <output_dir>/best; the final evaluation and the prediction use it.
      early_stopping_patience: With evaluate_each_epoch: end the training after so many
        evaluations in a row without a better result. Default: no early stopping.
    """

    do_predict: bool = False
    evaluate_each_epoch: bool = False
    early_stopping_patience: int | None = None

    def __post_init__(self) -> None:
        """Checks each field, and that there is something to do."""
        super().__post_init__()
        if not (self.do_train or self.do_eval or self.do_predict):
            raise ValueError(
                "At least one of `do_train`, `do_eval` and `do_predict` must be true. "
                "Received: do_train=False, do_eval=False, do_predict=False. Pass "
                "--do_train, for example."
            )
        if self.evaluate_each_epoch and not (self.do_train and self.do_eval):
            raise ValueError(
                "`evaluate_each_epoch` needs `do_train` and `do_eval`. Received: "
                f"do_train={self.do_train}, do_eval={self.do_eval}. Pass both."
            )
        checks.require_positive(self, "early_stopping_patience")
        checks.require_only_with(
            "evaluate_each_epoch",
            self.evaluate_each_epoch,
            "early_stopping_patience",
            self.early_stopping_patience,
            ", whose results it compares",
        )

    @property
    def splits(self) -> list[str]:
        """The splits that a run reads: what it trains on, evaluates and predicts."""
        wanted = {
            "train": self.do_train,
            "dev": self.do_eval,
            "test": self.do_predict,
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquadDataConfig:
    """SQuAD's files, and how answers are chosen.

    Attributes:
      train_file: Questions to train on, such as train-v1.1.json; needed with do_train.
      predict_file: Questions to answer, such as dev-v1.1.json; needed with do_eval and
        do_predict.
      data_dir: Folder of train-v1.1.json and dev-v1.1.json, or of v2.0 with
        version_2_with_negative: the default of train_file and predict_file.
      doc_stride: WordPieces from the start of one window of a long context to the next.
      max_query_length: Maximum number of WordPieces of a question; the rest is cut off.
      n_best_size: Maximum number of answers per question in nbest_predictions.json.
      max_answer_length: Maximum number of WordPieces of an answer.
      version_2_with_negative: Questions may have no answer (SQuAD 2.0).
      null_score_diff_threshold: The answer is empty if the score of no answer exceeds
        that of the best answer by more than this.
      num_processes: Worker processes that split texts into windows; 0 means one per
        core.
    """

    train_file: str = ""
    predict_file: str = ""
    data_dir: str = ""
    doc_stride: int = 128
    max_query_length: int = 64
    n_best_size: int = 20
    max_answer_length: int = 30
    version_2_with_negative: bool = False
    null_score_diff_threshold: float = 0.0
    num_processes: int = 0

    def __post_init__(self) -> None:
        names = ("doc_stride", "max_query_length", "n_best_size", "max_answer_length")
        checks.require_positive(self, *names)
        checks.require_not_negative(self, "num_processes")
        checks.require_limits(self, "null_score_diff_threshold")
        checks.require_only_with(
            "version_2_with_negative",
            self.version_2_with_negative,
            "null_score_diff_threshold",
            self.null_score_diff_threshold,
        )

    @property
    def train_path(self) -> str:
        """The questions to train on, with the default filled in."""
        return self.train_file or self._in_data_dir("train")

    @property
    def predict_path(self) -> str:
        """The questions to answer, with the default filled in."""
        return self.predict_file or self._in_data_dir("dev")

    def _in_data_dir(self, split: str) -> str:
        version = "2.0" if self.version_2_with_negative else "1.1"
        name = f"{split}-v{version}.json"
        return os.path.join(self.data_dir, name) if self.data_dir else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierDataConfig:
    """The task and its examples.

    Attributes:
      task_name: CoLA, MNLI, MRPC, QNLI, QQP, RTE, SST-2, STS-B, WNLI or XNLI; for your
        own files tsv (train.tsv, dev.tsv and test.tsv), jsonl, csv or parquet (the same
        with that extension); conll for tagged words (train.conll, ...); swag for
        multiple choice (train.csv, val.csv, ...); .gz may follow.
      data_dir: The folder of the task's files.
      dropout_before_logits: Dropout rate of the pooled vector in training.
      xnli_language: The language of XNLI.
      text_a_column: Your own files: column of the text, or of the first of two.
        Default: found by common names.
      text_b_column: Your own files: column of the second text. Default: found by common
        names, unless text_a_column is given.
      label_column: Your own files: column of the label; with is_multi_label also those
        of 0 and 1, with commas between. Default: found by common names.
      is_regression: Your own files: labels are numbers to predict.
      is_multi_label: Your own files: a text has any number of labels.
      new_head: Train a new classification head even if init_checkpoint has one.
      class_weights: Comma-separated CLASS:WEIGHT, with which the training's loss is a
        weighted mean, 1 for a class that is not listed; or balanced: n / (C x n_c) for
        a class with n_c of the n examples of C classes.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("task_name", "data_dir")

    task_name: str = ""
    data_dir: str = ""
    dropout_before_logits: float = 0.1
    xnli_language: str = XNLI_LANGUAGE
    text_a_column: str = ""
    text_b_column: str = ""
    label_column: str = ""
    is_regression: bool = False
    is_multi_label: bool = False
    new_head: bool = False
    class_weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks what is named, and that the task has the settings that are given."""
        checks.require_given(self, *self.REQUIRED)
        require_task_settings(self.task_name, vars(self))
        checks.require_probability(self, "dropout_before_logits")
        checks.require(
            not (self.class_weights and self.is_regression),
            "class_weights",
            "be left out with `is_regression`, which has no classes",
            ",".join(self.class_weights),
        )
        are_both = self.is_regression and self.is_multi_label
        rule = "be left out with `is_regression`"
        checks.require(not are_both, "is_multi_label", rule, True)
        self.weight_by_class()

    def weight_by_class(self) -> dict[str, float]:
        """The weights that `class_weights` lists; empty for none and for `balanced`.

        Raises:
          ValueError: if a part has no weight, one that is not positive, or a class is
            listed twice.
        """
        weights: dict[str, float] = {}
        for part in self.class_weights:
            if self.class_weights == (BALANCED,):
                break
            name, _, text = part.rpartition(":")
            try:
                weight = float(text)
            except ValueError:
                weight = math.nan
            checks.require(
                bool(name) and 0 < weight <= _LARGEST_WEIGHT and name not in weights,
                "class_weights",
                "list each class once with a positive number (CLASS:WEIGHT), or be "
                f"{BALANCED}",
                ",".join(self.class_weights),
            )
            weights[name] = weight
        return weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningConfig(RunConfig):
    """The settings that all fine-tuning scripts share.

    Attributes:
      batch: Batch sizes and sequence length.
    """

    DEFAULT_LENGTH: ClassVar[int]

    files: FinetuningFilesConfig
    batch: FinetuningBatchConfig = FinetuningBatchConfig()
    optimizer: FinetuningOptimizerConfig = FinetuningOptimizerConfig()
    training: FinetuningTrainingConfig

    @property
    def max_seq_length(self) -> int:
        """Tokens per row, with the default filled in."""
        return self.batch.max_seq_length or self.DEFAULT_LENGTH


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquadConfig(FinetuningConfig):
    """All settings of run_squad.

    Attributes:
      squad: SQuAD's files, and how answers are chosen.
    """

    DEFAULT_LENGTH = 384

    squad: SquadDataConfig = SquadDataConfig()

    def __post_init__(self) -> None:
        """Checks that the files that are needed are given, and the lengths."""
        super().__post_init__()
        for job, name in (
            ("do_train", "train_file"),
            ("do_eval", "predict_file"),
            ("do_predict", "predict_file"),
        ):
            if getattr(self.training, job):
                value = getattr(self.squad, name) or self.squad.data_dir
                checks.require_with(job, name, value)
        longest = self.squad.max_query_length + 3
        room = self.max_seq_length - longest
        stride = self.squad.doc_stride
        # The default is the original's, which moves on by a window if that is shorter.
        if stride != SquadDataConfig.doc_stride and room > 0:
            checks.require(
                stride <= room,
                "doc_stride",
                f"be at most {room}, the tokens of a window of max_seq_length="
                f"{self.max_seq_length} with a question of max_query_length="
                f"{self.squad.max_query_length}",
                stride,
                "Pass a smaller one, or a larger --max_seq_length.",
            )
        checks.require(
            longest < self.max_seq_length,
            "max_seq_length",
            f"be greater than {longest}, the tokens of a question of max_query_length="
            f"{self.squad.max_query_length} with [CLS] and two [SEP]",
            self.max_seq_length,
            "Pass a larger one, or a smaller --max_query_length.",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(FinetuningConfig):
    """All settings of run_classifier.

    Attributes:
      task: The task and its examples.
    """

    DEFAULT_LENGTH = 128

    task: ClassifierDataConfig

    def __post_init__(self) -> None:
        """Checks that a new head is trained."""
        super().__post_init__()
        why = ": an untrained head predicts nothing"
        do_train, new_head = self.training.do_train, self.task.new_head
        checks.require_only_with("do_train", do_train, "new_head", new_head, why)
