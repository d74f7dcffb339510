"""Settings that all training scripts share."""

import dataclasses
from typing import ClassVar, Self

from bert_tf.config import checks
from bert_tf.config.model import PRESETS
from bert_tf.config.runtime import RuntimeConfig
from bert_tf.config.saving import SavingConfig
from bert_tf.errors import counted, did_you_mean

OPTIMIZER_TYPES = ("lamb", "adam", "adamw")
# What a resumed run may change if it is asked to.
CONFIG_CHANGES = ("data", "vocabulary", "architecture", "labels", "loss", "precision")
EXCLUDED_FROM_WEIGHT_DECAY = ("LayerNorm", "layer_norm", "bias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFilesConfig:
    """Initial weights, architecture and output.

    Attributes:
      output_dir: Folder for checkpoints, results and logs; created if missing.
      bert_config_file: The architecture, a bert_config.json.
      preset: A published architecture instead of bert_config_file: tiny, mini, small,
        medium, base or large.
      init_checkpoint: Weights to start from: a checkpoint such as
        /dir/bert_model.ckpt, or a folder or file of another supported format.
      do_lower_case: Lower-case the text and strip accents, for an uncased model.
        Default: from the files next to the weights, else as the records were made, else
        true if the vocabulary is uncased.
      overwrite_output_dir: Do not resume from the checkpoints in output_dir; they are
        deleted once the first new one is complete.
      dllog_path: Log file in DLLogger's format; default <output_dir>/bert_dllog.json.
      keep_checkpoint_max: Number of newest checkpoints to keep.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("output_dir",)

    output_dir: str = ""
    bert_config_file: str = ""
    preset: str = ""
    init_checkpoint: str = ""
    do_lower_case: bool | None = None
    overwrite_output_dir: bool = False
    dllog_path: str = ""
    keep_checkpoint_max: int = 2

    def __post_init__(self) -> None:
        """Checks that output_dir is given, and the architecture at most once."""
        checks.require_given(self, *self.REQUIRED)
        checks.require_positive(self, "keep_checkpoint_max")
        if self.preset:
            checks.require_choice(self, "preset", tuple(PRESETS))
        if self.preset and self.bert_config_file:
            raise ValueError(
                "Only one of `bert_config_file` and `preset` may be given. Received: "
                f"bert_config_file={self.bert_config_file!r}, preset={self.preset!r}. "
                "Leave out one of them."
            )

    @property
    def resume(self) -> bool:
        """Whether init_checkpoint gives more than weights: a flag of pre-training."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunBatchConfig:
    """Batch sizes.

    Attributes:
      train_batch_size: Records, or examples, per micro-batch on each worker.
      num_accumulation_steps: Micro-batches per optimizer step on each worker.
      eval_batch_size: Records, or examples, per evaluation batch.
    """

    train_batch_size: int = 32
    num_accumulation_steps: int = 1
    eval_batch_size: int = 8

    def __post_init__(self) -> None:
        names = ("train_batch_size", "num_accumulation_steps", "eval_batch_size")
        checks.require_positive(self, *names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its learning rate.

    Attributes:
      optimizer_type: lamb, adam (original BERT: decoupled decay, no bias correction)
        or adamw (with bias correction).
      learning_rate: Peak learning rate per worker; see scale_learning_rate.
      scale_learning_rate: Multiply learning_rate by the number of workers.
      num_train_steps: Optimizer steps of the whole run.
      num_warmup_steps: Steps of linear warm-up; default: from warmup_proportion.
      warmup_proportion: Fraction of num_train_steps used for warm-up; default: a tenth.
      start_warmup_step: Step from which the warm-up counts; negative: a part of it has
        passed before step 0.
      poly_power: Power of the polynomial decay; default: 0.5 for lamb, 1.0 otherwise.
      beta_1: Decay rate of the first moment.
      beta_2: Decay rate of the second moment.
      epsilon: Added to the square root of the second moment.
      weight_decay_rate: Decoupled weight decay.
      exclude_from_weight_decay: Regular expressions of variables without decay.
      exclude_from_layer_adaptation: Regular expressions of variables whose LAMB trust
        ratio is 1.
      max_grad_norm: Gradients are clipped to this global norm; 0: no clipping.
      ema_decay: Decay rate of an exponential moving average of the weights, which is
        evaluated and exported, and saved next to them; 0: none.
    """

    optimizer_type: str = "lamb"
    learning_rate: float = 1e-4
    scale_learning_rate: bool = True
    num_train_steps: int = 100000
    num_warmup_steps: int | None = None
    warmup_proportion: float | None = None
    start_warmup_step: int = 0
    poly_power: float | None = None
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    weight_decay_rate: float = 0.01
    exclude_from_weight_decay: tuple[str, ...] = EXCLUDED_FROM_WEIGHT_DECAY
    exclude_from_layer_adaptation: tuple[str, ...] = ()
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        """Checks each field, and that the warm-up ends before the run does."""
        checks.require_choice(self, "optimizer_type", OPTIMIZER_TYPES)
        for name in ("exclude_from_weight_decay", "exclude_from_layer_adaptation"):
            checks.require_patterns(name, getattr(self, name))
        checks.require_positive(self, "learning_rate", "epsilon", "poly_power")
        names = ("weight_decay_rate", "max_grad_norm", "num_warmup_steps")
        checks.require_not_negative(self, *names)
        names = ("beta_1", "beta_2", "ema_decay", "warmup_proportion")
        checks.require_probability(self, *names)
        checks.require_limits(self, "start_warmup_step")
        if self.num_train_steps is not None:  # Fine-tuning may count epochs instead.
            self._check_steps()

    def _check_steps(self) -> None:
        checks.require_positive(self, "num_train_steps")
        checks.require(
            (self.num_warmup_steps or 0) < self.num_train_steps,
            "num_warmup_steps",
            f"be less than num_train_steps={self.num_train_steps}",
            self.num_warmup_steps,
        )
        latest = self.num_train_steps - self.warmup_steps - 1
        checks.require(
            self.start_warmup_step <= latest,
            "start_warmup_step",
            f"be at most {int(latest)}, so that "
            f"{counted(self.warmup_steps, 'step')} of warm-up end before "
            f"num_train_steps={self.num_train_steps}",
            self.start_warmup_step,
        )
        proportion = self.warmup_proportion
        is_given = proportion != type(self).warmup_proportion
        if is_given and self.num_warmup_steps not in (None, self._share(proportion)):
            raise ValueError(
                "`num_warmup_steps` and `warmup_proportion` must agree. Received: "
                f"num_warmup_steps={self.num_warmup_steps}, warmup_proportion="
                f"{proportion}, which is {self._share(proportion)} of num_train_steps="
                f"{self.num_train_steps}. Pass one of them."
            )

    def _share(self, proportion: float) -> int:
        """Steps of a fraction of the run."""
        return int(self.num_train_steps * proportion)

    @property
    def frozen_layers(self) -> int | None:
        """Encoder layers that are not trained: a flag of fine-tuning."""
        return None

    @property
    def layerwise_lr_decay(self) -> float:
        """Factor of the learning rate per layer: a flag of fine-tuning."""
        return 1.0

    def for_examples(self, num_examples: int, examples_per_step: int) -> Self:
        """These settings with the number of steps filled in."""
        del num_examples, examples_per_step  # Pre-training counts in steps.
        return self

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up, with the default filled in."""
        if self.num_warmup_steps is not None:
            return self.num_warmup_steps
        is_given = self.warmup_proportion is not None
        return self._share(self.warmup_proportion if is_given else 0.1)

    @property
    def power(self) -> float:
        """Power of the decay, with the default filled in."""
        if self.poly_power is None:
            return 0.5 if self.optimizer_type == "lamb" else 1.0
        return self.poly_power


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunTrainingConfig:
    """What to run, and how micro-batches form a step.

    Attributes:
      do_train: Train.
      do_eval: Evaluate, after the training if both are set.
      save_checkpoints_steps: Steps between checkpoints.
      save_checkpoints_minutes: Minutes after which a checkpoint is saved, if there was
        none by save_checkpoints_steps; 0: steps alone count.
      display_loss_steps: Steps between log lines; 0 or less: none.
      steps_this_run: Stop after so many steps with a checkpoint, from which the same
        command (without overwrite_output_dir) resumes. Default: all remaining steps.
      seed: Random seed of initial weights, record order and dropout.
      deterministic_run: Records in file order and no dropout, for comparing runs.
      allreduce_post_accumulation: Sum gradients over the workers once per step, after
        accumulation; otherwise once per micro-batch.
      loss_normalization: global (mean over the step's whole batch) or micro_batch (mean
        of the micro-batches' means).
      clip_each_micro_batch: Clip each micro-batch's gradient instead of the step's;
        implies loss_normalization=micro_batch.
      skip_nonfinite: Leave out a step whose gradient is not finite, and continue with
        the next one; 10 in a row stop the run. Default: the first one stops it.
      allow_config_change: Comma-separated names of what may differ when a run resumes:
        data, vocabulary, architecture, labels, loss or precision. Others are refused.
    """

    do_train: bool = False
    do_eval: bool = False
    save_checkpoints_steps: int = 1000
    save_checkpoints_minutes: float = 30.0
    display_loss_steps: int = 10
    steps_this_run: int | None = None
    seed: int = 42
    deterministic_run: bool = False
    allreduce_post_accumulation: bool = True
    loss_normalization: str = "global"
    clip_each_micro_batch: bool = False
    skip_nonfinite: bool = False
    allow_config_change: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.require_positive(self, "save_checkpoints_steps", "steps_this_run")
        checks.require_limits(self, "display_loss_steps")
        checks.require_not_negative(self, "save_checkpoints_minutes", "seed")
        checks.require(self.seed < 2**31, "seed", "be less than 2**31", self.seed)
        checks.require_choice(self, "loss_normalization", ("global", "micro_batch"))
        for name in self.allow_config_change:
            checks.require(
                name in CONFIG_CHANGES,
                "allow_config_change",
                f"list names among {', '.join(CONFIG_CHANGES)}",
                ",".join(self.allow_config_change),
                did_you_mean(name, CONFIG_CHANGES),
            )

    @property
    def evaluate_each_epoch(self) -> bool:
        """Whether an evaluation follows each epoch: a flag of all scripts."""
        return False

    @property
    def max_samples(self) -> int | None:
        """Sequences after which the run ends: a flag of pre-training."""
        return None

    @property
    def max_hours(self) -> float | None:
        """Hours after which the run ends: a flag of pre-training."""
        return None

    @property
    def is_micro_batch_mean(self) -> bool:
        """Whether a step's loss is the mean of its micro-batches' means."""
        return self.clip_each_micro_batch or self.loss_normalization == "micro_batch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of a training script, in groups.

    Attributes:
      files: Initial weights, architecture and output.
      batch: Batch sizes.
      optimizer: The optimizer and its learning rate.
      training: What to run, and how micro-batches form a step.
      runtime: Processes, devices and precision.
      saving: Checkpoints by samples, exports, and measuring without either.
    """

    files: RunFilesConfig
    batch: RunBatchConfig
    optimizer: OptimizerConfig
    training: RunTrainingConfig
    runtime: RuntimeConfig = RuntimeConfig()
    saving: SavingConfig = SavingConfig()

    def __post_init__(self) -> None:
        """Checks the settings of a training that other groups decide about."""
        training, saving = self.training, self.saving
        for name in (
            *("skip_checkpoint", "benchmark", "export_steps"),
            *("enable_device_warmup", "num_samples_per_checkpoint"),
            "min_samples_to_start_checkpoints",
        ):
            value = getattr(saving, name)
            checks.require_only_with("do_train", training.do_train, name, value)
        checks.require(
            not (saving.benchmark and training.steps_this_run),
            "steps_this_run",
            "not be given with `benchmark`, whose number of steps is fixed",
            training.steps_this_run,
            "Leave out one of them.",
        )
        checks.require(
            not (training.evaluate_each_epoch and saving.skip_checkpoint),
            "skip_checkpoint",
            "not be given with `evaluate_each_epoch`, which saves the best checkpoint",
            saving.skip_checkpoint,
            "Leave out one of them.",
        )
        checks.require(
            training.allreduce_post_accumulation or not self.runtime.shard_optimizer,
            "allreduce_post_accumulation",
            "be true with `shard_optimizer`, which adds gradients up once per step",
            training.allreduce_post_accumulation,
            "Drop --noallreduce_post_accumulation, or --shard_optimizer.",
        )
        last = self.optimizer.num_train_steps
        if last is not None:  # Fine-tuning may count epochs until it knows its data.
            checks.require(
                max(saving.steps_to_export, default=0) <= last,
                "export_steps",
                f"be at most num_train_steps={int(last)}",
                ",".join(saving.export_steps),
            )
