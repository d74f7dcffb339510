"""Settings of what a training saves and when, which all scripts share."""

import dataclasses

from bert_tf.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavingConfig:
    """Checkpoints by samples, exports, and measuring without either.

    Attributes:
      num_samples_per_checkpoint: Sequences between checkpoints, instead of
        save_checkpoints_steps. A packed record counts as the average of its set.
      min_samples_to_start_checkpoints: No checkpoint before the run has trained on so
        many sequences, but at its end or at a signal.
      skip_checkpoint: Save no checkpoint, not even at the end or at a signal.
      export_steps: Comma-separated steps after which the model is written into
        <output_dir>/export/step-N, in the format of transformers; 0: before training.
      benchmark: Measure the speed of training over 40 steps, after 10 that do not
        count, print it and end, without a checkpoint.
      enable_device_warmup: Before the first step, compute two on made-up rows;
        they change nothing.
    """

    num_samples_per_checkpoint: int | None = None
    min_samples_to_start_checkpoints: int = 0
    skip_checkpoint: bool = False
    export_steps: tuple[str, ...] = ()
    benchmark: bool = False
    enable_device_warmup: bool = False

    def __post_init__(self) -> None:
        checks.require_positive(self, "num_samples_per_checkpoint")
        checks.require_not_negative(self, "min_samples_to_start_checkpoints")
        for step in self.export_steps:
            checks.require(
                step.isdecimal() and int(step) <= checks.MAX_NUMBER,
                "export_steps",
                "list steps, such as 0,1000",
                ",".join(self.export_steps),
            )

    @property
    def saves_nothing(self) -> bool:
        """Whether there is no checkpoint at all."""
        return self.skip_checkpoint or self.benchmark

    @property
    def steps_to_export(self) -> list[int]:
        """The steps of export_steps, in rising order, each once."""
        return sorted(set(map(int, self.export_steps)))
