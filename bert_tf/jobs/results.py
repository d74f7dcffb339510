"""What a fine-tuned model leaves: logits, results, and a description of itself."""

import json
import os
from typing import Any

import numpy as np

from bert_tf.data.example_batches import LabelledSequences, prediction_batches
from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.evaluation.prediction import predict
from bert_tf.files import write_whole
from bert_tf.jobs.architecture import find_vocabulary, write_architecture
from bert_tf.jobs.finetuning import FinetuningPlan


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


def write_description(plan: FinetuningPlan, task: dict[str, Any]) -> None:
    """Writes what the checkpoints alone do not say, for whoever predicts with them.

    Files: bert_config.json, vocab.txt and task.json.

    Args:
      plan: The run.
      task: What task.json says.
    """
    files = plan.config.files
    task = task | {"do_lower_case": files.do_lower_case}
    write_architecture(files.output_dir, plan.bert, find_vocabulary(files))
    text = json.dumps(task, indent=2, ensure_ascii=False)
    write_whole(os.path.join(files.output_dir, "task.json"), text)
