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
from bert_tf.launch import launched_rank

# Settings that ask for evaluations while a training runs, and all that need a training.
_PERIODS = ("eval_steps", "samples_between_eval", "samples_start_eval")
_OF_EVALUATION = (*_PERIODS, "target_mlm_accuracy", "evaluate_each_epoch")
_OF_TRAINING = (*_OF_EVALUATION, "max_samples", "max_hours")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesConfig(RunFilesConfig):
    """Records, initial weights, architecture and output.

    Attributes:
      input_files_dir: Comma-separated folders of training records, TFRecord or HDF5;
        * and ? are expanded. With weights (FOLDER:0.7,FOLDER:0.3), the share of the
        records of a run that is read from each; otherwise each record is read equally
        often. Needed with do_train.
      eval_files_dir: Folders of evaluation records, in the same form without weights;
        needed with do_eval.
      vocab_file: The vocabulary of the records; checked against the architecture, and
        copied next to the checkpoints.
      resume: Restore optimizer state, step and data position from init_checkpoint, not
        only its weights.
      mlperf_log: File for the log lines of MLPerf Training, which the package
        mlperf-logging writes; overwritten by each start.
    """

    input_files_dir: str = ""
    eval_files_dir: str = ""
    vocab_file: str = ""
    resume: bool = False
    mlperf_log: str = ""

    def __post_init__(self) -> None:
        """Checks what all scripts check, and that `resume` has a checkpoint."""
        super().__post_init__()
        of_run = os.path.join(self.output_dir, "bert_config.json")
        is_given = self.preset or self.bert_config_file or self.init_checkpoint
        # Other workers may get the run's file from the first one, and check it then.
        if not (is_given or launched_rank() or os.path.isfile(of_run)):
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
        checks.require_positive(self, "max_seq_length", "max_predictions_per_seq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunTrainingConfig):
    """What to run, and how micro-batches form a step.

    Attributes:
      max_eval_steps: Maximum number of batches of eval_batch_size to evaluate.
      do_nsp: Predict next sentences, too; without it, the model is a masked LM without
        a pooler. Default: as in the resumed run, else if the records have sentence
        pairs.
      dynamic_masking: Mask other tokens of a record in each epoch, instead of those
        that the record has masked; evaluation records keep theirs.
      skip_records: Comma-separated records to leave out, as messages name them:
        FILE:NUMBER or FILE:FIRST-LAST. They are read as empty rows.
      max_corrupt_records: Before the first step, read all records and look for corrupt
        ones; leave out up to so many of each set, refuse more. 0: do not look, and stop
        at the first corrupt record.
      eval_steps: Evaluate after every so many steps of the training.
      evaluate_each_epoch: Evaluate after each pass over the training records, also
        beside the others, and keep the checkpoint with the best masked-LM accuracy in
        <output_dir>/best.
      samples_between_eval: Evaluate each time so many more sequences are trained.
        Default, without eval_steps, with samples_start_eval, or target_mlm_accuracy
        without evaluate_each_epoch: MLPerf's, a twentieth of what it needs to converge.
      samples_start_eval: Do not evaluate before so many sequences; default:
        samples_between_eval.
      target_mlm_accuracy: End the training when the masked-LM accuracy of an evaluation
        is at least this, in (0, 1]. The exit code is 3 if it is never reached.
      max_samples: End the training after so many sequences; the learning rate still
        follows num_train_steps.
      max_hours: End the training after so many hours, without the time between a stop
        and a restart. The learning rate depends on the elapsed time, of which
        num_warmup_steps / num_train_steps is warm-up.
    """

    max_eval_steps: int = 100
    do_nsp: bool | None = None
    dynamic_masking: bool = False
    skip_records: tuple[str, ...] = ()
    max_corrupt_records: int = 0
    eval_steps: int | None = None
    evaluate_each_epoch: bool = False
    samples_between_eval: int | None = None
    samples_start_eval: int | None = None
    target_mlm_accuracy: float | None = None
    max_samples: int | None = None
    max_hours: float | None = None

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
        self._check_goal()

    def _check_goal(self) -> None:
        """Checks what evaluates and ends a training."""
        given = [name for name in _OF_TRAINING if self._is_given(name)]
        positive = [
            n for n in given if n not in ("samples_start_eval", "evaluate_each_epoch")
        ]
        checks.require_positive(self, *positive)
        checks.require_not_negative(self, "samples_start_eval")
        if self.target_mlm_accuracy is not None:
            target = self.target_mlm_accuracy
            advice = f"For {target:g}% pass {target / 100:g}." if target <= 100 else ""
            checks.require(
                target <= 1, "target_mlm_accuracy", "be at most 1", target, advice
            )
        for name in given:
            rule, value = "be given with `do_train` only", getattr(self, name)
            remedy = f"Pass --do_train, or drop --{name}."
            checks.require(self.do_train, name, rule, value, remedy)
        if self.eval_steps is not None and self.samples_between_eval is not None:
            raise ValueError(
                "Only one of `eval_steps` and `samples_between_eval` may be given. "
                f"Received: eval_steps={self.eval_steps}, samples_between_eval="
                f"{self.samples_between_eval}. Leave out one of them."
            )

    @property
    def evaluation_settings(self) -> list[str]:
        """The given settings that ask for evaluations while the training runs."""
        return [name for name in _OF_EVALUATION if self._is_given(name)]

    @property
    def has_evaluation_period(self) -> bool:
        """Whether evaluations follow steps or sequences, not passes alone."""
        given = self.evaluation_settings
        periods = [name for name in _PERIODS if name in given]
        return bool(periods or (given and not self.evaluate_each_epoch))

    def _is_given(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False

    @property
    def evaluates(self) -> bool:
        """Whether there is an evaluation at all."""
        return self.do_eval or bool(self.evaluation_settings)


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
        super().__post_init__()
        training = self.training
        needed = {"do_train": "input"} if training.do_train else {}
        needed |= {"do_eval": "eval"} if training.do_eval else {}
        needed |= dict.fromkeys(training.evaluation_settings, "eval")
        for job, folder in needed.items():
            name = f"{folder}_files_dir"
            checks.require_with(job, name, getattr(self.files, name))
