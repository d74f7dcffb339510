"""What of a resumed run is not as it was when the run began: refused, or logged."""

import dataclasses
import json
import os
from typing import Any

from bert_tf import fused_ops
from bert_tf.config import BertConfig
from bert_tf.interop.weight_files import ORIGINAL_CONFIG
from bert_tf.jobs.plan import Plan
from bert_tf.jobs.starting_point import StartingPoint, accumulation_steps
from bert_tf.training.runlog import RunLog

# What a run may change; all else decides what its weights mean.
_FREE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
# Settings that are compared otherwise: with the checkpoint, the records or task.json.
_COMPARED_ELSEWHERE = (
    *("learning_rate", "scale_learning_rate", "seed"),
    *("train_batch_size", "num_accumulation_steps"),
    *("max_seq_length", "max_predictions_per_seq"),
)
# Settings that do not change what a step of a resumed run computes.
_OF_THIS_RUN = (
    *("do_train", "do_eval", "do_predict", "steps_this_run"),
    *("save_checkpoints_steps", "display_loss_steps", "max_eval_steps"),
    *("eval_batch_size", "predict_batch_size", "evaluate_each_epoch"),
    *("n_best_size", "max_answer_length", "null_score_diff_threshold"),
    *("num_processes", "new_head"),
)
_GROUPS_NOT_COMPARED = ("files", "runtime")


def check_architecture(start: StartingPoint, bert: BertConfig) -> None:
    """Refuses an architecture that is not the one of the state that is taken.

    Heads and activation change no tensor's shape, and so would not be noticed later.

    Raises:
      ValueError: with both values.
    """
    before = _architecture(start)
    differing = [
        f"{name}={before[name]}"
        for name, value in bert.to_dict().items()
        if name not in _FREE and before.get(name, value) != value
    ]
    if differing:
        names = [each.partition("=")[0] for each in differing]
        received = ", ".join(f"{name}={getattr(bert, name)}" for name in names)
        raise ValueError(
            f"{start.prefix} is of a run with {', '.join(differing)}. Received: "
            f"{received}. Name the architecture of the run, or another output_dir."
        )


def _architecture(start: StartingPoint) -> dict[str, Any]:
    """What a manifest, or in an older run the file beside it, says; else empty."""
    if start.position is None:
        return {}
    if "bert" in start.position.config:
        return start.position.config["bert"]
    path = os.path.join(os.path.dirname(start.prefix), ORIGINAL_CONFIG)
    if not os.path.isfile(path):
        return {}
    return BertConfig.from_json_file(path).to_dict()


def check_packing(start: StartingPoint, is_packed: bool) -> None:
    """Refuses packed records where the run had plain ones, and the other way round.

    Its global batch is kept in records, which would hold another number of sequences.

    Raises:
      ValueError: naming what to do.
    """
    before = start.position.is_packed if start.position else None
    if before is None or before == is_packed:
        return
    kinds = {True: "packed records", False: "records that are not packed"}
    raise ValueError(
        f"{start.prefix} is of a run on {kinds[before]}. Received: {kinds[is_packed]}, "
        "with which a step would have another number of sequences. Name records as "
        "before, or begin a new run with its weights: another output_dir, "
        f"--init_checkpoint={start.prefix} and no --resume."
    )


def describe_changes(plan: Plan, log: RunLog) -> None:
    """Says where a resumed run keeps its own values against the flags', or not."""
    position, config = plan.start.position, plan.config
    if position is None:
        return
    size = plan.shape.size if config.optimizer.scale_learning_rate else 1
    steps = accumulation_steps(config, None, plan.shape.size, plan.sequences_per_record)
    flags_batch = config.batch.train_batch_size * steps * plan.shape.size
    pairs = {
        "learning rate": (
            position.learning_rate,
            config.optimizer.learning_rate * size,
        ),
        "global batch": (position.global_batch_size, flags_batch),
        "seed": (position.seed, config.training.seed),
    }
    for name, (kept, asked) in pairs.items():
        if kept != asked:
            log.message(
                f"Kept from the checkpoint: {name} {kept:g} (flags: {asked:g})."
            )
    if changes := _new_settings(plan):
        log.message(f"New from here on: {', '.join(changes)}.")
    _describe_warmup(plan, log)
    _describe_data(plan, log)


def run_settings(plan: Plan) -> dict[str, Any]:
    """What a manifest keeps of the settings, for a reader and for the next run."""
    values = dataclasses.asdict(plan.config)
    return values | {
        "bert": plan.bert.to_dict(),
        "precision": plan.policy.name,
        "compute_path": fused_ops.in_use(),
    }


def _new_settings(plan: Plan) -> list[str]:
    """Settings that a resumed run takes from the flags, and had otherwise before."""
    # As they come back from a file: without tuples.
    now = _compared(json.loads(json.dumps(run_settings(plan))))
    before = _compared(plan.start.position.config)
    return [
        f"{name} {before[key]} -> {value}"
        for key, value in now.items()
        for name in key[-1:]
        if key in before and before[key] != value
    ]


def _compared(settings: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """(group, name) -> value of the settings that change what a step computes."""
    left_out = (*_COMPARED_ELSEWHERE, *_OF_THIS_RUN)
    compared = {}
    for group, values in settings.items():
        if group in _GROUPS_NOT_COMPARED:
            continue
        members = values if isinstance(values, dict) else {group: values}
        compared |= {
            (group, name): value
            for name, value in members.items()
            # Data are compared by what is in them, not by where they are.
            if name not in left_out and not name.endswith(("_dir", "_file"))
        }
    return compared


def _describe_warmup(plan: Plan, log: RunLog) -> None:
    """The warm-up may follow the number of steps, and then changes with it."""
    settings, before = plan.config.optimizer, plan.start.position.config
    num_train_steps = before.get("optimizer", {}).get("num_train_steps")
    if num_train_steps is None or settings.num_warmup_steps is not None:
        return
    earlier = dataclasses.replace(settings, num_train_steps=num_train_steps)
    if earlier.warmup_steps != settings.warmup_steps:
        log.message(
            f"The warm-up follows num_train_steps: {earlier.warmup_steps} -> "
            f"{settings.warmup_steps} steps. --num_warmup_steps={earlier.warmup_steps} "
            "keeps it."
        )


def _describe_data(plan: Plan, log: RunLog) -> None:
    position = plan.start.position
    if plan.num_train_records != position.num_records:
        log.message(
            f"warning: the run began with {position.num_records} records and now has "
            f"{plan.num_train_records}; the order of the records is another one."
        )
    elif position.data_sha256 is None:
        log.message(
            f"{plan.start.prefix}.json is of an earlier version: whether these are the "
            "records that the run began with could not be compared."
        )
    elif position.data_sha256 != plan.data_sha256:
        log.message(
            f"warning: the run began with other records, also {position.num_records}: "
            "from here on it reads these, from the position where it stopped."
        )
