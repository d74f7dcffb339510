"""What decides the weights of a run and what they mean, compared when it is resumed.

A fingerprint has an entry for the training data, the evaluation data, the vocabulary,
the architecture, the label set, the loss settings and the precision. The manifest of a
checkpoint keeps it. All workers must have the same one; a resumed run may change an
entry only if `--allow_config_change` names it.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bert_tf.config import BertConfig
from bert_tf.config.run import CONFIG_CHANGES, RunTrainingConfig
from bert_tf.data.text.vocabulary import load_vocabulary
from bert_tf.errors import shortened
from bert_tf.interop.weight_files import ORIGINAL_CONFIG, VOCABULARY
from bert_tf.jobs.run.model_files import RunTokenizer
from bert_tf.jobs.run.starting_point import StartingPoint

if TYPE_CHECKING:
    from bert_tf.data.batches.example_batches import LabelledSequences
    from bert_tf.data.records.record_set import RecordSet
    from bert_tf.precision import PrecisionPolicy

# Entry -> name -> value, as JSON has them. A name that is missing is not known.
Fingerprint = dict[str, dict[str, Any]]

TITLES = {
    "data": "training data",
    "evaluation": "evaluation data",
    "vocabulary": "vocabulary",
    "architecture": "architecture",
    "labels": "label set",
    "loss": "loss settings",
    "precision": "precision",
}
# These decide what a step computes; the others what the weights mean.
_OF_STEPS = ("data", "loss", "precision")
# Settings in bert_config.json that a resumed run may change: they are logged.
CHANGEABLE_SETTINGS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "initializer_range",
)
# What runs of earlier versions did without, and did not state, by entry.
_EARLIER = {
    "data": {"dynamic_masking": False, "weights": [], "class_weights": []},
    "loss": {"do_nsp": True},
}
# What a message shows.
_MAX_SHOWN = 60  # Characters of a value.
_MAX_ITEMS = 3  # Items of a list.


def take_fingerprint(
    training: RunTrainingConfig,
    bert: BertConfig,
    tokenizer: RunTokenizer,
    policy: "PrecisionPolicy",
    *,
    data: Mapping[str, object],
    evaluation: Mapping[str, object],
    labels: Mapping[str, object],
    losses: Mapping[str, object] | None = None,
) -> Fingerprint:
    """The fingerprint of a run.

    Args:
      training: How micro-batches form a step.
      bert: The architecture.
      tokenizer: The vocabulary and its settings.
      policy: Decides compute types.
      data: Facts about the training set; empty without training.
      evaluation: Facts about what is evaluated or predicted.
      labels: What the outputs of the model's head mean.
      losses: Facts about the losses.
    """
    found = {
        "data": data,
        "evaluation": evaluation,
        "vocabulary": _vocabulary(tokenizer.vocab_file)
        | (dataclasses.asdict(tokenizer.settings) if tokenizer.settings else {}),
        "architecture": _architecture(bert.to_dict()),
        "labels": labels,
        "loss": _loss(training.is_micro_batch_mean, training.clip_each_micro_batch)
        | dict(losses or {}),
        "precision": {
            "name": policy.name,
            "lists": dataclasses.asdict(policy.rules) if policy.rules else "none",
        },
    }
    return json.loads(json.dumps(found))


def record_facts(records: "RecordSet | None") -> dict[str, object]:
    """The number of records, their checksum, and names and sizes of their files.

    Empty without records.

    Folders may be moved and renamed. The checksum is that of a sample, if there are
    many records; files with metadata have one of their own.
    """
    if records is None:
        return {}
    files, checksums = [], []
    for path in records.index.files:
        name = os.path.basename(path)
        about = records.metadata.get(records.index.described[path])
        shards = (about.shards if about else None) or ()
        checksums += [shard.crc32c for shard in shards if shard.name == name]
        files.append([name, os.path.getsize(path)])
    facts = {"records": len(records), "sha256": records.sha256, "files": files}
    # Metadata may be written between two starts: what only one states is not compared.
    return facts | ({"crc32c": checksums} if len(checksums) == len(files) else {})


def training_facts(records: "RecordSet", masked_units: str | None) -> dict[str, object]:
    """`record_facts`, and how the records are read: weights of their sets, and masks.

    Args:
      records: The training set. A weight is stated with the number of records in its
        set, since folders may be moved and renamed.
      masked_units: What is masked while training; None if the records' masks are used.
    """
    total = sum(share.parts for share in records.shares)
    weights = [
        [share.num_records, f"{share.parts}/{total}"] for share in records.shares
    ]
    reading = {"dynamic_masking": masked_units or False, "weights": weights}
    return record_facts(records) | reading


def example_facts(examples: "LabelledSequences") -> dict[str, object]:
    """The number of examples, and the checksum of their tokens and labels."""
    return {"records": len(examples), "sha256": examples.sha256()}


def _vocabulary(path: str) -> dict[str, object]:
    """Number and checksum of the words; empty if there is no file."""
    if not os.path.isfile(path):
        return {}
    words = load_vocabulary(path)
    return {
        "words": len(words),
        "sha256": hashlib.sha256("\n".join(words).encode()).hexdigest(),
    }


def _architecture(values: Mapping[str, object]) -> dict[str, object]:
    return {n: v for n, v in values.items() if n not in CHANGEABLE_SETTINGS}


def _loss(is_micro_batch_mean: bool, clips_each: bool) -> dict[str, object]:
    return {
        "loss_normalization": "micro_batch" if is_micro_batch_mean else "global",
        "clip_each_micro_batch": clips_each,
    }


def _of_manifest(start: StartingPoint) -> Fingerprint:
    """The fingerprint of the resumed run, as far as its version has kept it."""
    position = start.position
    if position.fingerprint is not None:
        return position.fingerprint
    config = position.config
    training, runtime = config.get("training", {}), config.get("runtime", {})
    found: Fingerprint = {
        "architecture": _architecture(_earlier_architecture(start)),
        "vocabulary": {},
        "data": {"records": position.num_records},
    }
    if position.data_sha256 is not None:
        found["data"]["sha256"] = position.data_sha256
    if start.is_own:
        found["vocabulary"] = _vocabulary(_beside(start, VOCABULARY))
    if "version_2_with_negative" in config.get("squad", {}):
        version = config["squad"]["version_2_with_negative"]
        found["labels"] = {"version_2_with_negative": version}
    if "loss_normalization" in training:
        clips_each = bool(training.get("clip_each_micro_batch"))
        is_mean = training["loss_normalization"] == "micro_batch"
        found["loss"] = _loss(clips_each or is_mean, clips_each)
    name = "fp16" if runtime.get("amp") else runtime.get("precision")
    # Without a flag a variable decided, which earlier versions did not keep.
    if name := config.get("precision", name):
        found["precision"] = {"name": name}
    return found


def _beside(start: StartingPoint, name: str) -> str:
    return os.path.join(os.path.dirname(start.prefix), name)


def _earlier_architecture(start: StartingPoint) -> dict[str, object]:
    """From the manifest or, of an older run, from the file next to it; or empty."""
    if start.position is None:
        return {}
    if "bert" in start.position.config:
        return start.position.config["bert"]
    path = _beside(start, ORIGINAL_CONFIG)
    if not os.path.isfile(path):
        return {}
    return BertConfig.from_json_file(path).to_dict()


def check_architecture(
    start: StartingPoint, bert: BertConfig, allowed: Sequence[str] = ()
) -> None:
    """Refuses another architecture than that of the resumed run, before all the rest.

    Heads and activation change no tensor's shape: nothing later would notice them.

    Args:
      start: Where the run starts.
      bert: The architecture of the run.
      allowed: Entries that may change.

    Raises:
      ValueError: with both values.
    """
    before = _architecture(_earlier_architecture(start))
    now = bert.to_dict()
    names = [n for n, value in before.items() if n in now and now[n] != value]
    if not names or "architecture" in allowed:
        return
    raise ValueError(
        f"{start.prefix} is of a run with {_listed(before, names)}. Received: "
        f"{_listed(now, names)}. Pass the architecture of the run, or another "
        "--output_dir; --allow_config_change=architecture resumes with the new one."
    )


def _listed(values: Mapping[str, object], names: Sequence[str]) -> str:
    return ", ".join(f"{name}={values[name]}" for name in names)


def check_packing(start: StartingPoint, is_packed: bool) -> None:
    """Refuses packed records where the resumed run had plain ones, and vice versa.

    Its global batch is kept in records, which would hold another number of sequences.

    Raises:
      ValueError: with the remedy.
    """
    before = start.position.is_packed if start.position else None
    if before is None or before == is_packed:
        return
    kinds = {True: "packed records", False: "records that are not packed"}
    raise ValueError(
        f"{start.prefix} is of a run on {kinds[before]}. Received: {kinds[is_packed]}, "
        "with which a step would have another number of sequences; "
        "--allow_config_change does not permit that. Pass records as before, or start "
        "a new run from its weights: another --output_dir, "
        f"--init_checkpoint={start.prefix} and no --resume."
    )


def compare_with_run(
    start: StartingPoint, now: Fingerprint, allowed: Sequence[str], *, takes_steps: bool
) -> list[str]:
    """Compares a run with the one that it resumes.

    Args:
      start: Where the run starts.
      now: The fingerprint of the run.
      allowed: The value of `--allow_config_change`.
      takes_steps: Whether there is training left; an evaluation may compute in another
        precision.

    Returns:
      Lines for the log: changes that are allowed, and what could not be compared.

    Raises:
      ValueError: if something else differs, with both values.
    """
    if start.position is None:
        return _without_effect(allowed)
    before = _of_manifest(start)
    for entry, values in _EARLIER.items():
        earlier = {name: x for name, x in values.items() if name in now.get(entry, {})}
        if entry in before:
            before = before | {entry: earlier | before[entry]}
    compared = [x for x in CONFIG_CHANGES if takes_steps or x not in _OF_STEPS]
    changes = {each: _changes(before, now, each) for each in TITLES}
    refused = [x for x in compared if changes[x] and x not in allowed]
    if refused:
        found = "; ".join(f"{TITLES[x]}: {', '.join(changes[x])}" for x in refused)
        raise ValueError(
            f"{start.prefix} is of a run with other settings than these flags and "
            f"data. Before -> now, {found}. Pass what the run started with, or another "
            f"--output_dir; --allow_config_change={','.join(refused)} resumes it with "
            "the new values."
        )
    logged = {x: f"--allow_config_change={x}" for x in compared if x in allowed}
    logged |= {"evaluation": "New from here on"}
    if not takes_steps:
        logged |= {"precision": "Differs from the training"}
    lines = [
        f"{reason}: {TITLES[x]}: {', '.join(changes[x])}."
        for x, reason in logged.items()
        if changes[x]
    ]
    unknown = [text for each in compared for text in _unknown(before, now, each)]
    if unknown:
        lines.append(
            f"Since {start.prefix} or this run does not state them, these could not be "
            f"compared: {', '.join(unknown)}."
        )
    return [*lines, *_without_effect([x for x in allowed if not changes[x]])]


def _without_effect(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    listed = ",".join(names)
    return [f"--allow_config_change={listed} has no effect: nothing of it has changed."]


def _changes(before: Fingerprint, now: Fingerprint, entry: str) -> list[str]:
    """What an entry had before -> has now, of the names that both know."""
    old, new = before.get(entry, {}), now.get(entry, {})
    return [
        text
        for name in old
        if name in new and old[name] != new[name]
        for text in describe_change(name, old[name], new[name])
    ]


def _unknown(before: Fingerprint, now: Fingerprint, entry: str) -> list[str]:
    """What only one of them knows."""
    old, new = before.get(entry, {}).keys(), now.get(entry, {}).keys()
    if not old ^ new:
        return []
    if not old & new:
        return [TITLES[entry]]
    return [f"{name} of the {TITLES[entry]}" for name in sorted(old ^ new)]


def describe_change(name: str, before: object, now: object) -> list[str]:
    """Lines `name before -> now`; of dictionaries and long lists, what differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            text
            for key in dict.fromkeys([*before, *now])
            if before.get(key) != now.get(key)
            for text in describe_change(key, before.get(key), now.get(key))
        ]
    if isinstance(before, list) and isinstance(now, list):
        old, new = ([json.dumps(x) for x in each] for each in (before, now))
        gone = [x for x in old if x not in {*new}]
        added = [x for x in new if x not in {*old}]
        is_long = max(len(json.dumps(x)) for x in (before, now)) > _MAX_SHOWN
        if (gone or added) and (is_long or max(len(old), len(new)) > _MAX_ITEMS):
            return [f"{name} {_items(gone)} -> {_items(added)}"]
    return [f"{name} {_short(before)} -> {_short(now)}"]


def _items(items: Sequence[str]) -> str:
    shown = ", ".join(_short(item) for item in items[:_MAX_ITEMS]) or "none of these"
    more = len(items) - _MAX_ITEMS
    return f"{shown} and {more} more" if more > 0 else shown


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text, _MAX_SHOWN)
