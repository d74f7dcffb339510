"""Writes the model for transformers at named steps of a training."""

import json
import os
import re

from bert_tf.data.text.tokenization import UNCASED
from bert_tf.data.text.tokenizer_settings import TASK_FILE
from bert_tf.errors import RunError, one_line
from bert_tf.files import sync_folder, temporary_folder
from bert_tf.interop.classifier_labels import head_of
from bert_tf.interop.export import Form, Model, write_model
from bert_tf.interop.tensor_shapes import conform
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.resume import weights_by_name
from bert_tf.training.runlog import RunLog

EXPORT_DIR = "export"
_STEP = re.compile(r"step-(0|[1-9][0-9]*)")


class Exporter:
    """Writes <output_dir>/export/step-N for each N of --export_steps.

    A folder is there whole or not at all. With --ema_decay it holds the averages.
    """

    def __init__(self, plan: Plan, log: RunLog) -> None:
        """Prepares for one run, on its first worker.

        Args:
          plan: The run.
          log: Gets a line for each export.
        """
        self._plan = plan
        self._log = log
        self._steps = plan.config.saving.steps_to_export
        self._folder = os.path.join(plan.config.files.output_dir, EXPORT_DIR)

    def start(self) -> None:
        """Exports the step that the run starts from, if it is named and missing.

        Raises:
          RunError: if it cannot be written.
        """
        there = self._found() if os.path.isdir(self._folder) else set()
        is_own, step = self._plan.start.is_own, self._plan.step
        if there and self._steps and not is_own:
            self._log.message(
                f"{self._folder} has exports of an earlier run, which stay until this "
                f"run exports the same steps: {', '.join(map(str, sorted(there)))}."
            )
        if missed := [x for x in self._steps if x < step and x not in there]:
            self._log.message(
                f"--export_steps: the run is past these, at step {step}: "
                f"{', '.join(map(str, missed))}."
            )
        if late := [x for x in self._steps if x > self._plan.last_step]:
            self._log.message(
                f"--export_steps: the run ends before these, at step "
                f"{self._plan.last_step}: {', '.join(map(str, late))}."
            )
        if step not in there or not is_own:
            self.after_step(step)

    def _found(self) -> set[int]:
        """The steps that were exported."""
        matches = map(_STEP.fullmatch, os.listdir(self._folder))
        return {int(match[1]) for match in matches if match}

    def after_step(self, step: int) -> None:
        """Exports the model, if the step is named.

        Raises:
          RunError: if it cannot be written.
        """
        if step not in self._steps:
            return
        path = os.path.join(self._folder, f"step-{step}")
        try:
            with temporary_folder(path) as folder:
                write_model(self._model(step), str(folder), Form.TRANSFORMERS)
                if os.path.lexists(path):  # From an earlier run or start.
                    with temporary_folder(f"{path}.old") as old:
                        os.rename(path, old / "model")
                        os.rename(folder, path)
                else:
                    os.rename(folder, path)
            sync_folder(self._folder)
        except OSError as error:
            why = one_line(error).removesuffix(".")
            raise RunError(
                f"The export {path} cannot be written: {why}. Correct that "
                "and run the same command again: it resumes from the newest "
                "checkpoint, unless --overwrite_output_dir is passed."
            ) from error
        self._log.message(f"Step {step} is exported to {path}.")

    def _model(self, step: int) -> Model:
        plan = self._plan
        weights = weights_by_name(plan.task.model)
        if plan.averages:
            weights = plan.averages.values()
        run = os.path.basename(os.path.abspath(plan.config.files.output_dir))
        source = f"step {step} of {run}"
        arrays = {name: weight.numpy() for name, weight in weights.items()}
        tensors, _ = conform(arrays, plan.bert, source)
        description = plan.model_files.get(TASK_FILE)
        outputs = tensors.get("output_bias", ())
        return Model(
            tensors,
            plan.bert,
            plan.tokenizer.vocab_file,
            plan.tokenizer.settings or UNCASED,
            source,
            head_of(json.loads(description) if description else {}, len(outputs)),
        )
