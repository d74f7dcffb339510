"""Settings of fine-tuning, in groups; `flags` makes one flag of each field."""

import dataclasses

from bert_tf.config import checks
from bert_tf.config.run import OptimizerConfig, RunFilesConfig, RunTrainingConfig
from bert_tf.config.runtime import RuntimeConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningFilesConfig(RunFilesConfig):
    """Where the model comes from and where results go.

    Attributes:
      vocab_file: The model's vocabulary; default: that beside init_checkpoint, or in
        output_dir.
    """

    vocab_file: str = ""

    @property
    def resume(self) -> bool:
        """Of `init_checkpoint`, fine-tuning takes the weights alone."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningBatchConfig:
    """How many examples are computed at once.

    Attributes:
      train_batch_size: Examples of one micro-batch on one worker.
      num_accumulation_steps: Micro-batches per optimizer step on each worker.
      eval_batch_size: Examples of one evaluation batch.
      predict_batch_size: Examples of one prediction batch.
      max_seq_length: Tokens of a row; longer texts are cut or windowed. Default: 384
        for SQuAD, 128 for classification.
      pack_sequences: Put several examples into one row, where they fit; same results,
        less padding.
    """

    train_batch_size: int = 32
    num_accumulation_steps: int = 1
    eval_batch_size: int = 8
    predict_batch_size: int = 8
    max_seq_length: int | None = None
    pack_sequences: bool = False

    def __post_init__(self) -> None:
        """Checks that every number is positive."""
        names = ["train_batch_size", "num_accumulation_steps", "eval_batch_size"]
        checks.require_positive(self, *names, "predict_batch_size")
        if self.max_seq_length is not None:
            checks.require(
                self.max_seq_length >= 8,
                "max_seq_length",
                "be at least 8",
                self.max_seq_length,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningOptimizerConfig(OptimizerConfig):
    """The optimizer and its learning rate.

    Attributes:
      learning_rate: Peak learning rate.
      num_train_epochs: How often each example is seen.
      num_train_steps: Optimizer steps of the whole run, a whole number, instead of
        num_train_epochs.
      num_warmup_steps: Steps of linear warm-up; default: by warmup_proportion.
      warmup_proportion: Part of all steps that is warm-up.
    """

    optimizer_type: str = "adam"
    learning_rate: float = 5e-5
    scale_learning_rate: bool = False
    num_train_steps: float | None = None  # As in the scripts of the other systems.
    num_train_epochs: float = 3.0
    warmup_proportion: float = 0.1

    def __post_init__(self) -> None:
        """Checks each field; the rest when the number of steps is known."""
        checks.require_positive(self, "num_train_epochs")
        steps = self.num_train_steps
        checks.require(
            steps is None or steps == int(steps), "num_train_steps", "be whole", steps
        )
        checks.require_probability(self, "warmup_proportion")
        super().__post_init__()

    def for_examples(
        self, num_examples: int, examples_per_step: int
    ) -> "FinetuningOptimizerConfig":
        """These settings with the number of steps filled in."""
        if self.num_train_steps is not None:
            return dataclasses.replace(self, num_train_steps=int(self.num_train_steps))
        if not num_examples:  # No training: flags about it must not stand in the way.
            return dataclasses.replace(self, num_train_steps=1, num_warmup_steps=0)
        steps = int(num_examples / examples_per_step * self.num_train_epochs)
        return dataclasses.replace(self, num_train_steps=max(1, steps))

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up, with the default filled in."""
        if self.num_warmup_steps is None:
            return int(self.num_train_steps * self.warmup_proportion)
        return self.num_warmup_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningTrainingConfig(RunTrainingConfig):
    """What is done, and how steps are made of micro-batches.

    Attributes:
      do_predict: Predict, and write the predictions.
      evaluate_each_epoch: Evaluate after each epoch, and keep the best checkpoint in
        <output_dir>/best, with which the run then ends.
    """

    do_predict: bool = False
    evaluate_each_epoch: bool = False

    def __post_init__(self) -> None:
        """Checks each field, and that there is something to do."""
        super().__post_init__()
        if not (self.do_train or self.do_eval or self.do_predict):
            raise ValueError(
                "At least one of `do_train`, `do_eval` and `do_predict` must be true. "
                "Received: all three false."
            )
        if self.evaluate_each_epoch and not (self.do_train and self.do_eval):
            raise ValueError(
                "`evaluate_each_epoch` must come with `do_train` and `do_eval`. "
                f"Received: do_train={self.do_train}, do_eval={self.do_eval}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquadDataConfig:
    """The questions, and how answers are chosen.

    Attributes:
      train_file: Questions to train on, such as train-v1.1.json.
      predict_file: Questions to answer, such as dev-v1.1.json.
      doc_stride: WordPieces between the beginnings of two windows of a long context.
      max_query_length: WordPieces of a question; the rest is cut off.
      n_best_size: Answers in nbest_predictions.json.
      max_answer_length: Most WordPieces of an answer.
      version_2_with_negative: Questions may have no answer (SQuAD 2.0).
      null_score_diff_threshold: No answer is given if the score of none is higher
        than that of the best by more than this.
      num_processes: Processes that cut texts into windows; default: one per core.
    """

    train_file: str = ""
    predict_file: str = ""
    doc_stride: int = 128
    max_query_length: int = 64
    n_best_size: int = 20
    max_answer_length: int = 30
    version_2_with_negative: bool = False
    null_score_diff_threshold: float = 0.0
    num_processes: int = 0

    def __post_init__(self) -> None:
        """Checks each number."""
        names = ("doc_stride", "max_query_length", "n_best_size", "max_answer_length")
        checks.require_positive(self, *names)
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierDataConfig:
    """The task and its examples.

    Attributes:
      task_name: CoLA, MNLI, MRPC, QNLI, QQP, RTE, SST-2, STS-B, WNLI or XNLI; tsv or
        jsonl for files of your own: train.tsv, dev.tsv and test.tsv, or .jsonl.
      data_dir: The folder of the task's files.
      dropout_before_logits: Dropout of the pooled vector, in training.
      xnli_language: The language of XNLI.
      text_a_column: Of own files: the column of the text; found by usual names.
      text_b_column: Of own files: the column of the second text, if there is one.
      label_column: Of own files: the column of the label.
      is_regression: Of own files: labels are numbers to be predicted.
      new_head: Train a new head, although init_checkpoint has one for other classes.
    """

    task_name: str = ""
    data_dir: str = ""
    dropout_before_logits: float = 0.1
    xnli_language: str = "zh"
    text_a_column: str = ""
    text_b_column: str = ""
    label_column: str = ""
    is_regression: bool = False
    new_head: bool = False

    def __post_init__(self) -> None:
        """Checks that task and folder are named."""
        for name in ("task_name", "data_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        checks.require_probability(self, "dropout_before_logits")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """What every fine-tuning run is told.

    Attributes:
      files: Where the model comes from and where results go.
      batch: How many examples are computed at once.
      optimizer: The optimizer and its learning rate.
      training: What is done, and how.
      runtime: The processes and the arithmetic.
    """

    files: FinetuningFilesConfig
    batch: FinetuningBatchConfig = FinetuningBatchConfig()
    optimizer: FinetuningOptimizerConfig = FinetuningOptimizerConfig()
    training: FinetuningTrainingConfig
    runtime: RuntimeConfig = RuntimeConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquadConfig(FinetuningConfig):
    """Everything that run_squad is told.

    Attributes:
      squad: The questions, and how answers are chosen.
    """

    squad: SquadDataConfig = SquadDataConfig()

    def __post_init__(self) -> None:
        """Checks that the questions for what is to be done are named."""
        training = self.training
        needed = {
            "train_file": training.do_train,
            "predict_file": training.do_predict or training.do_eval,
        }
        for name, is_needed in needed.items():
            checks.require(
                bool(getattr(self.squad, name)) or not is_needed,
                name,
                "be given for what is to be done",
                "",
            )
        checks.require(
            self.squad.max_query_length + 3 < self.max_seq_length,
            "max_seq_length",
            f"leave room beside max_query_length={self.squad.max_query_length}",
            self.max_seq_length,
        )

    @property
    def max_seq_length(self) -> int:
        """Tokens of a row, with the default filled in."""
        return self.batch.max_seq_length or 384


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(FinetuningConfig):
    """Everything that run_classifier is told.

    Attributes:
      task: The task and its examples.
    """

    task: ClassifierDataConfig

    def __post_init__(self) -> None:
        """Checks that a new head is trained."""
        checks.require(
            self.training.do_train or not self.task.new_head,
            "new_head",
            "come with `do_train`: an untrained head predicts nothing",
            True,
        )

    @property
    def max_seq_length(self) -> int:
        """Tokens of a row, with the default filled in."""
        return self.batch.max_seq_length or 128
