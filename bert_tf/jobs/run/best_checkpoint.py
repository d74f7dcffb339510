"""The best checkpoint of a run, kept in <output_dir>/best next to the newest ones."""

import json
import math
import os

from bert_tf.errors import RunError
from bert_tf.files import write_whole
from bert_tf.interop.weight_files import BEST_DIR, BEST_NOTE
from bert_tf.jobs.run.output_dir import changed_files
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.resume import load_checkpoint, weights_by_name
from bert_tf.json_files import read_json_object
from bert_tf.training import checkpoints

_LAST = "last_step"
# Beside the first checkpoint of a new run: the note of an earlier one is deleted, which
# the new run would take for its own when it is resumed.
FORGET_BEST = {f"{BEST_DIR}/{BEST_NOTE}": None}


class BestCheckpoint:
    """The weights with the highest value of one result, in <output_dir>/best.

    A resumed run keeps what it found before it was stopped.
    """

    def __init__(self, plan: Plan, criterion: str, rank: int) -> None:
        """Reads the note of a resumed run.

        Args:
          plan: The run.
          criterion: Name of the result; the highest value is the best.
          rank: This worker; the first one writes.

        Raises:
          RunError: if the note or its checkpoint is damaged.
        """
        self._plan = plan
        self._criterion = criterion
        self._rank = rank
        self._folder = os.path.join(plan.config.files.output_dir, BEST_DIR)
        self._note = os.path.join(self._folder, BEST_NOTE)
        self._best: dict[str, float] | None = None
        if plan.start.is_own and os.path.exists(self._note):
            self._best = self._read_note()
            if rank == 0:  # The others may have the note alone.
                self._check_weights(int(self._best["step"]))

    def _read_note(self) -> dict[str, float]:
        try:
            found = read_json_object(self._note)
            names = ("step", self._criterion, _LAST)
            for name in names:
                kinds = (int, float) if name == self._criterion else (int,)
                if type(found[name]) not in kinds or not math.isfinite(found[name]):
                    raise ValueError(f"{name}={found[name]!r}")
            return {name: found[name] for name in names}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self._note} is damaged ({error!r}). Delete its folder: the best "
                "checkpoint is then chosen from the evaluations to come."
            ) from error

    def _check_weights(self, step: int) -> None:
        """Refuses a damaged checkpoint now, not at the end of the training."""
        prefix = os.path.join(self._folder, f"model.ckpt-{step}")
        if checkpoints.read_manifest(prefix) is None:
            raise RunError(
                f"{self._note} names step {step}, but there is no {prefix}.json. "
                "Restore it, or delete its folder: the best checkpoint is then chosen "
                "from the evaluations to come."
            )

    @property
    def step(self) -> int:
        """The step with the best result; 0 if nothing was evaluated."""
        return int(self._best["step"]) if self._best else 0

    @property
    def last_step(self) -> int:
        """The last step that was evaluated; 0 if there is none."""
        return int(self._best[_LAST]) if self._best else 0

    def offer(self, step: int, results: dict[str, float]) -> bool:
        """Saves the weights if their result is the best so far; returns whether."""
        value = results[self._criterion]
        is_best = self._best is None or value > self._best[self._criterion]
        if is_best:
            self._best = {"step": step, self._criterion: value}
        self._best |= {_LAST: step}
        if self._rank == 0:
            note = json.dumps(self._best)
            if is_best:
                self._save(step, note)
            else:
                write_whole(self._note, note)
        return is_best

    def _save(self, step: int, note: str) -> None:
        """Replaces the best checkpoint and its note in one commit."""
        os.makedirs(self._folder, exist_ok=True)
        # With the model's files next to it, it can be used without any other flag.
        files = changed_files(self._folder, self._plan.model_files)
        checkpoints.save(
            self._folder,
            weights_by_name(self._plan.task.model),
            checkpoints.RunPosition(
                step=step,
                records=0,
                global_batch_size=self._plan.shape.global_batch_size,
                learning_rate=self._plan.learning_rate,
                seed=self._plan.seed,
                num_records=self._plan.training_set.num_records,
            ),
            replaces=checkpoints.committed_steps(self._folder),
            beside={**files, BEST_NOTE: note.encode()},
        )

    def load(self) -> str:
        """Loads the best weights and their step; returns a line for the log."""
        if self._best is None:
            return "No checkpoint has been evaluated yet."
        step, value = int(self._best["step"]), self._best[self._criterion]
        prefix = os.path.join(self._folder, f"model.ckpt-{step}")
        load_checkpoint(prefix, weights_by_name(self._plan.task.model))
        self._plan.optimizer.iterations.assign(step)
        return f"Best: step {step}, {self._criterion} = {value:.6g}, in {prefix}."
