"""Settings of pre-training, in groups; `flags` makes one flag of each field."""

import dataclasses
import os

from bert_tf.config import checks
from bert_tf.config.record_ranges import parse_ranges
from bert_tf.config.run import (
    OptimizerConfig,
    RunBatchConfig,
    RunConfig,
    RunFilesConfig,
    RunTrainingConfig,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesConfig(RunFilesConfig):
    """Records, initial weights, architecture and output.

    Attributes:
      input_files_dir: Comma-separated folders of training records, TFRecord or HDF5;
        * and ? are expanded. With weights (FOLDER:0.7,FOLDER:0.3), the share of the
        records of a run that is read from each; otherwise each record is read equally
        often.
      eval_files_dir: Folders of evaluation records, in the same form without weights.
      vocab_file: The vocabulary of the records; checked against the architecture, and
        copied next to the checkpoints.
      resume: Restore optimizer state, step and data position from init_checkpoint, not
        only its weights.
    """

    input_files_dir: str = ""
    eval_files_dir: str = ""
    vocab_file: str = ""
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks what all scripts check, and that `resume` has a checkpoint."""
        super().__post_init__()
        of_run = os.path.join(self.output_dir, "bert_config.json")
        is_given = self.preset or self.bert_config_file or self.init_checkpoint
        if not (is_given or os.path.isfile(of_run)):
            raise ValueError(
                "Exactly one of `bert_config_file` and `preset` must be given, or "
                "neither if `init_checkpoint` has a config next to it, or if the run "
                f"in `output_dir` is resumed. Received: none of them, and no {of_run}. "
                "Pass --bert_config_file, for example."
            )
        if self.resume and not self.init_checkpoint:
            raise ValueError(
                "`resume` needs `init_checkpoint`, whose optimizer state and step it "
                "restores. Received: resume=True, init_checkpoint=''. Pass "
                "--init_checkpoint, or neither: a run resumes from the checkpoints in "
                "its output_dir without these flags."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig(RunBatchConfig):
    """Batch sizes and record lengths.

    Attributes:
      train_batch_size: Records per micro-batch on each worker.
      eval_batch_size: Records per evaluation batch.
      max_seq_length: Tokens per record; default: that of the records.
      max_predictions_per_seq: Maximum number of masked tokens per record; default: that
        of the records.
    """

    max_seq_length: int | None = None
    max_predictions_per_seq: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_seq_length", "max_predictions_per_seq"):
            if getattr(self, name) is not None:
                checks.require_positive(self, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunTrainingConfig):
    """What to run, and how micro-batches form a step.

    Attributes:
      max_eval_steps: Maximum number of batches of eval_batch_size to evaluate.
      dynamic_masking: Mask other tokens of a record in each epoch, instead of those
        that the record has masked; evaluation records keep theirs.
      skip_records: Comma-separated records to leave out, as messages name them:
        FILE:NUMBER or FILE:FIRST-LAST. They are read as empty rows.
      max_corrupt_records: Before the first step, read all records and look for corrupt
        ones; leave out up to so many of each set, refuse more. 0: do not look, and stop
        at the first corrupt record.
    """

    max_eval_steps: int = 100
    dynamic_masking: bool = False
    skip_records: tuple[str, ...] = ()
    max_corrupt_records: int = 0

    def __post_init__(self) -> None:
        """Checks each field, and that there is something to do."""
        super().__post_init__()
        checks.require_positive(self, "max_eval_steps")
        checks.require_not_negative(self, "max_corrupt_records")
        parse_ranges("skip_records", self.skip_records)
        if not (self.do_train or self.do_eval):
            raise ValueError(
                "At least one of `do_train` and `do_eval` must be true. Received: "
                "do_train=False, do_eval=False. Pass --do_train, for example."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingConfig(RunConfig):
    """All settings of run_pretraining.

    Attributes:
      files: Records, initial weights, architecture and output.
      batch: Batch sizes and record lengths.
    """

    files: FilesConfig
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig

    def __post_init__(self) -> None:
        """Checks that there are records to train on or to evaluate."""
        for job, folder in (("do_train", "input"), ("do_eval", "eval")):
            name = f"{folder}_files_dir"
            if getattr(self.training, job) and not getattr(self.files, name):
                raise ValueError(
                    f"`{name}` must be given with `{job}`. Received: {name}=''. Pass "
                    f"--{name}."
                )
