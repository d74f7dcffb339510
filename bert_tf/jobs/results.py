"""What a fine-tuned model leaves: logits, results, and a description of itself."""

import json
import os
from typing import Any

import numpy as np

from bert_tf.config.finetuning import FinetuningConfig
from bert_tf.data.batches.example_batches import LabelledSequences, prediction_batches
from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.evaluation.prediction import predict
from bert_tf.files import write_whole
from bert_tf.interop.classifier_labels import TASK_FILE, read_description
from bert_tf.jobs.architecture import write_architecture
from bert_tf.jobs.finetuning import FinetuningPlan

# What a model sees and says; other settings may differ from those of its training.
_DECIDING = (
    *("task", "label_names", "max_seq_length", "do_lower_case"),
    "version_2_with_negative",
)


def predict_logits(
    plan: FinetuningPlan,
    examples: LabelledSequences,
    batch_size: int,
    communicator: Communicator,
    *,
    of_tokens: bool,
) -> np.ndarray:
    """The logits of all tokens [T, C], or of all examples [n, C], on every worker.

    Raises:
      NonFiniteError: on every worker, if one is not a finite number.
    """
    batches = prediction_batches(
        examples,
        plan.rows,
        batch_size=batch_size,
        rank=communicator.rank,
        size=communicator.size,
    )
    sequences = examples.sequences
    count = len(sequences.input_ids) if of_tokens else len(sequences)
    logits = predict(plan.task, batches, count, communicator, of_tokens=of_tokens)
    if not np.isfinite(logits).all():
        raise NonFiniteError(
            "The model's logits are not finite numbers. Its training went wrong: train "
            "again with a lower learning rate, or take an earlier checkpoint."
        )
    return logits


def keep_description(
    plan: FinetuningPlan, task: dict[str, Any], communicator: Communicator
) -> None:
    """Writes what the checkpoints alone do not say, for whoever predicts with them.

    Before training, bert_config.json, vocab.txt, tokenizer_config.json and task.json
    are written. What an earlier part of the run has written must agree.

    Args:
      plan: The run.
      task: What task.json says.
      communicator: The workers; the first one writes.

    Raises:
      RunError: if the run was begun with other settings that decide what the model
        sees and says.
    """
    files, error = plan.config.files, None
    task = task | {"do_lower_case": plan.tokenizer.settings.do_lower_case}
    path = os.path.join(files.output_dir, TASK_FILE)
    try:
        if communicator.rank == 0:
            if plan.start.is_own:
                _check_description(path, task, plan.config)
            if plan.config.training.do_train:
                write_architecture(files.output_dir, plan.bert, plan.tokenizer)
                write_whole(path, json.dumps(task, indent=2, ensure_ascii=False))
    except (OSError, ValueError) as caught:
        error = caught
    communicator.agree(error)


def _check_description(
    path: str, task: dict[str, Any], config: FinetuningConfig
) -> None:
    known = read_description(os.path.dirname(path))
    if config.batch.max_seq_length and not config.training.do_train:
        known.pop("max_seq_length", None)  # Chosen for predicting.
    for name in _DECIDING:
        if name in known and name in task and known[name] != task[name]:
            raise ValueError(
                f"{path}: the model was trained with {name}={known[name]!r}. Received: "
                f"{name}={task[name]!r}. Give the same flags and classes as for its "
                "training, or name another output_dir."
            )
