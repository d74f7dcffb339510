"""When a checkpoint is due: by steps or by samples, by minutes, or never."""

from collections.abc import Callable

from bert_tf.config.run import RunConfig
from bert_tf.errors import counted


def num_due(samples: float, first: int, between: int) -> int:
    """How many checkpoints, or evaluations, have been due after so many sequences.

    Args:
      samples: Sequences that were trained on.
      first: Those before the first one is due.
      between: Those between two.
    """
    return max(0, int((samples - first) // between) + 1)


class CheckpointPolicy:
    """Whether a checkpoint is due after a step, as the settings say.

    Samples are sequences: those of all records that the run has read by then, where a
    packed record counts as the average of its set. By samples, the first checkpoint is
    due at max(min_samples_to_start_checkpoints, num_samples_per_checkpoint) and the
    next ones every num_samples_per_checkpoint, each at the first step that has reached
    its number. So it is a function of the step: a resumed run saves the same steps.
    """

    def __init__(self, config: RunConfig, num_samples: Callable[[int], float]) -> None:
        """Prepares for one run.

        Args:
          config: The settings.
          num_samples: Step -> sequences that the run has trained on after it.
        """
        self._training = config.training
        self._saving = config.saving
        self._num_samples = num_samples

    @property
    def saves(self) -> bool:
        """Whether there are checkpoints."""
        return not self._saving.saves_nothing

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether to save after a step that is neither the last nor asked to be.

        Args:
          step: Steps taken.
          seconds: Since the last checkpoint.
        """
        samples = self._num_samples(step)
        if not self.saves or samples < self._saving.min_samples_to_start_checkpoints:
            return False
        if 0 < 60 * self._training.save_checkpoints_minutes <= seconds:
            return True
        if self._saving.num_samples_per_checkpoint is None:
            return step % self._training.save_checkpoints_steps == 0
        return self._num_due(samples) > self._num_due(self._num_samples(step - 1))

    def _num_due(self, samples: float) -> int:
        """Checkpoints that were due by so many samples."""
        every = self._saving.num_samples_per_checkpoint
        first = max(self._saving.min_samples_to_start_checkpoints, every)
        return num_due(samples, first, every)

    def notes(self) -> list[str]:
        """Lines for the log about what is not as it is by default."""
        saving = self._saving
        if not self.saves:
            name = "benchmark" if saving.benchmark else "skip_checkpoint"
            line = f"--{name}: no checkpoint is saved, also not of the last step."
            if saving.benchmark:
                line += " Nothing is evaluated or predicted."
            return [line]
        every, first = (
            saving.num_samples_per_checkpoint,
            saving.min_samples_to_start_checkpoints,
        )
        lines = []
        if every is not None:
            lines.append(
                f"Checkpoints: every {every:,} sequences, not every "
                f"{counted(self._training.save_checkpoints_steps, 'step')}."
            )
        if first:
            lines.append(f"Checkpoints: none before {first:,} sequences.")
        return lines
