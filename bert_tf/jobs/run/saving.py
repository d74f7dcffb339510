"""Saves the state of a run."""

from bert_tf.data.batches.record_batches import StepReader
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.resume import slots_by_name, weights_by_name
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import RunPosition
from bert_tf.training.loss_scale import LossScale


class CheckpointSaver:
    """Saves the state of a run, and deletes older checkpoints."""

    def __init__(
        self, plan: Plan, reader: StepReader, loss_scale: LossScale | None
    ) -> None:
        """Prepares for one run.

        Args:
          plan: The run.
          reader: Knows how many records were read after a step.
          loss_scale: Of float16.
        """
        self._plan = plan
        self._reader = reader
        self._loss_scale = loss_scale
        files = plan.config.files
        overwrites = files.overwrite_output_dir and not plan.start.is_own
        # Checkpoints of the overwritten run, kept until the first new one is complete.
        self._overwritten = (
            checkpoints.committed_steps(files.output_dir) if overwrites else []
        )

    def save(self, step: int) -> None:
        """Writes the state after `step` steps; for the first worker alone."""
        plan, files = self._plan, self._plan.config.files
        scale, trained = self._loss_scale, plan.training_set
        position = RunPosition(
            step=step,
            records=self._reader.position(step),
            global_batch_size=plan.shape.global_batch_size,
            learning_rate=plan.learning_rate,
            seed=plan.seed,
            num_records=trained.num_records,
            loss_scale=scale.value if scale else None,
            num_finite_steps=scale.num_finite_steps if scale else 0,
            data_sha256=trained.sha256,
            is_packed=trained.is_packed,
            config=plan.settings(),
        )
        tensors = weights_by_name(plan.task.model) | slots_by_name(plan.optimizer)
        checkpoints.save(files.output_dir, tensors, position)
        overwritten = [s for s in self._overwritten if s != step]
        committed = checkpoints.committed_steps(files.output_dir)
        own = [s for s in committed if s not in overwritten]
        for unwanted in overwritten + own[: -files.keep_checkpoint_max]:
            checkpoints.remove(files.output_dir, unwanted)
        self._overwritten = []
