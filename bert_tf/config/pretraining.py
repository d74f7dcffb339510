"""Settings of pre-training, in groups; `flags` makes one flag of each field."""

import dataclasses

from bert_tf.config import checks
from bert_tf.config.run import OptimizerConfig, RunFilesConfig, RunTrainingConfig
from bert_tf.config.runtime import RuntimeConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesConfig(RunFilesConfig):
    """What is read and where results go.

    Attributes:
      input_files_dir: Folders of training records (TFRecord), separated by commas;
        * and ? work.
      eval_files_dir: Folders of evaluation records, in the same form.
      vocab_file: The vocabulary of the records; checked against the architecture, and
        put beside the checkpoints for those who use them.
      resume: Take optimizer state, step and data position from init_checkpoint too,
        not its weights alone.
    """

    input_files_dir: str = ""
    eval_files_dir: str = ""
    vocab_file: str = ""
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks what all scripts check, and that `resume` has something to take."""
        super().__post_init__()
        if not (self.preset or self.bert_config_file or self.init_checkpoint):
            raise ValueError(
                "Exactly one of `bert_config_file` and `preset` must be given, or "
                "neither with an `init_checkpoint` that has its config beside it. "
                "Received: none of them."
            )
        if self.resume and not self.init_checkpoint:
            raise ValueError(
                "`resume` must come with `init_checkpoint`, whose state it takes. "
                "Received: resume=True, init_checkpoint=''. A run whose output_dir "
                "holds a checkpoint goes on from there without either flag."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How many records are computed at once.

    Attributes:
      train_batch_size: Records of one micro-batch on one worker.
      num_accumulation_steps: Micro-batches per optimizer step on each worker.
      eval_batch_size: Records of one evaluation batch.
      max_seq_length: Tokens per record; default: as the records are.
      max_predictions_per_seq: Masked tokens per record; default: as the records are.
    """

    train_batch_size: int = 32
    num_accumulation_steps: int = 1
    eval_batch_size: int = 8
    max_seq_length: int | None = None
    max_predictions_per_seq: int | None = None

    def __post_init__(self) -> None:
        """Checks that every number is positive."""
        checks.require_positive(
            self, "train_batch_size", "num_accumulation_steps", "eval_batch_size"
        )
        for name in ("max_seq_length", "max_predictions_per_seq"):
            if getattr(self, name) is not None:
                checks.require_positive(self, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunTrainingConfig):
    """What is done, and how steps are made of micro-batches.

    Attributes:
      max_eval_steps: Most batches of eval_batch_size to evaluate.
    """

    max_eval_steps: int = 100

    def __post_init__(self) -> None:
        """Checks each field, and that there is something to do."""
        super().__post_init__()
        checks.require_positive(self, "max_eval_steps")
        if not (self.do_train or self.do_eval):
            raise ValueError(
                "At least one of `do_train` and `do_eval` must be true. Received: "
                "do_train=False, do_eval=False."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """Everything that a pre-training run is told.

    Attributes:
      files: What is read and where results go.
      batch: How many records are computed at once.
      optimizer: The optimizer and its learning rate.
      training: What is done, and how.
      runtime: The processes and the arithmetic.
    """

    files: FilesConfig
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig
    runtime: RuntimeConfig = RuntimeConfig()

    def __post_init__(self) -> None:
        """Checks that the data for what is to be done is named."""
        for job, folder in (("do_train", "input"), ("do_eval", "eval")):
            name = f"{folder}_files_dir"
            if getattr(self.training, job) and not getattr(self.files, name):
                raise ValueError(
                    f"`{name}` must be given with `{job}`. Received: {name}=''."
                )
