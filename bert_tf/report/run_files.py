"""The files of a run, also of earlier versions, to what a page shows of it."""

import dataclasses
import glob
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bert_tf.data.text.tokenizer_settings import TASK_FILE
from bert_tf.errors import RunError, counted, one_line
from bert_tf.files import check_regular
from bert_tf.json_files import MAX_BYTES, parse_json
from bert_tf.report.log_curves import LogCurves, read_log

LOG_FILE = "bert_dllog.json"
# What a run leaves for its report besides the log.
FACTS_FILE = "report.json"
REPORT_FILE = "report.html"
RESULTS_FILE = "eval_results.txt"
TRAINING_RESULT_FILE = "training_result.json"
_MANIFEST = re.compile(r"model\.ckpt-(\d+)\.json")
# Keys of a manifest's config that are not settings.
_ENVIRONMENT = ("versions", "compute_path", "precision", "workers")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What is known of a run; all of it may be empty.

    Attributes:
      folder: The output_dir.
      curves: What was logged.
      settings: Group -> name -> value.
      environment: Name -> value.
      data: Facts about the training set, with `lengths` of its sequences.
      details: For fine-tuning, `confusion` and `hardest`.
      results: Name -> value.
      command: A line for a shell that starts it again; empty if unknown.
      notes: What is missing or damaged.
    """

    folder: str
    curves: LogCurves
    settings: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    details: Mapping[str, Any]
    results: Mapping[str, float]
    command: str
    notes: Sequence[str]

    @property
    def name(self) -> str:
        """The folder's name."""
        return one_line(os.path.basename(os.path.abspath(self.folder)) or self.folder)


def read_run(folder: str, log_path: str = "") -> RunFiles:
    """Reads what a run has left.

    Args:
      folder: The output_dir of the run.
      log_path: The log, if it is not where the run's own files say.

    Raises:
      RunError: if there is nothing of a run.
    """
    if not os.path.isdir(folder):
        raise RunError(
            f"{one_line(folder)} must be the --output_dir of a run, and is no folder. "
            "Pass an existing one."
        )
    notes: list[str] = []
    facts = _mapping(_read_json(folder, FACTS_FILE, notes))
    position = _newest_manifest(folder, notes)
    task = _mapping(_read_json(folder, TASK_FILE, notes))
    config = _mapping(facts.get("settings")) or _mapping(position.get("config"))
    path = log_path or _log_path(folder, config)
    curves = read_log(path)
    if not (curves.is_there or facts or position or task):
        raise RunError(
            f"{one_line(folder)} must be the --output_dir of a run. Received: a folder "
            f"without {LOG_FILE}, {FACTS_FILE}, {TASK_FILE} and checkpoints. Pass that "
            "of a run."
        )
    if not curves.is_there:
        notes.append(f"There is no log {one_line(path)}: no curves.")
    elif not curves.last_step:
        notes.append("The log has no training steps.")
    if curves.num_cut:
        notes.append(f"{counted(curves.num_cut, 'line')} of the log cannot be read.")
    if curves.num_not_finite:
        notes.append(
            f"{counted(curves.num_not_finite, 'logged step')} with values that are not "
            "finite: "
            "the lines have gaps there."
        )
    if not facts:
        notes.append(f"There is no {FACTS_FILE}: a run of an earlier version.")
    resumed = [step for step in curves.first_steps if step > 1]
    if resumed:
        listed = ", ".join(map(str, resumed[-20:]))
        notes.append(f"Resumed at step {listed}.")
    return RunFiles(
        folder=folder,
        curves=curves,
        settings=_groups(config, task),
        environment=_mapping(facts.get("environment")) or _old_environment(config),
        data=_mapping(facts.get("data")) or _old_data(position),
        details=_mapping(facts.get("details")),
        results=_results(folder, curves, notes),
        command=str(facts.get("command", "")),
        notes=notes,
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_json(folder: str, name: str, notes: list[str]) -> object:
    """The content of a JSON file; None if it is missing, or damaged (with a note)."""
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    try:
        check_regular(path, MAX_BYTES)
        with open(path, "rb") as file:
            return parse_json(file.read(), finite=False)
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{name} cannot be read: {one_line(error)}")
        return None


def _newest_manifest(folder: str, notes: list[str]) -> dict[str, Any]:
    names = os.listdir(folder)
    steps = [int(m[1]) for m in map(_MANIFEST.fullmatch, names) if m and len(m[1]) < 19]
    for step in sorted(steps, reverse=True):
        if found := _mapping(_read_json(folder, f"model.ckpt-{step}.json", notes)):
            return found
    return {}


def _log_path(folder: str, config: Mapping[str, Any]) -> str:
    """The log in the folder, else where the run's settings say."""
    own = os.path.join(folder, LOG_FILE)
    elsewhere = _mapping(config.get("files")).get("dllog_path")
    if os.path.isfile(own) or not isinstance(elsewhere, str) or not elsewhere:
        return own
    return elsewhere


def _groups(
    config: Mapping[str, Any], task: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Settings by group; those without one are of the group `run`."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in config.items():
        if name in _ENVIRONMENT:
            continue
        if isinstance(value, dict):
            groups[name] = value
        else:
            groups.setdefault("run", {})[name] = value
    return groups | ({"task.json": dict(task)} if task else {})


def _old_environment(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: config[name] for name in _ENVIRONMENT if name in config}
    return _mapping(found.pop("versions", None)) | found


def _old_data(position: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of the training set."""
    names = {"num_records": "records", "is_packed": "packed", "data_sha256": "sha256"}
    return {new: position[old] for old, new in names.items() if old in position}


def _results(folder: str, curves: LogCurves, notes: list[str]) -> dict[str, float]:
    """The results of the evaluation and of the training."""
    found: dict[str, float] = {}
    path = os.path.join(folder, RESULTS_FILE)
    if os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read(MAX_BYTES).splitlines():
                name, _, text = line.partition(" = ")
                try:
                    found[name] = float(text)
                except ValueError:
                    notes.append(f"A line of {RESULTS_FILE} cannot be read.")
    training = _mapping(_read_json(folder, TRAINING_RESULT_FILE, notes))
    numbers = {n: x for n, x in training.items() if isinstance(x, int | float)}
    for name in ("throughput_train", "throughput_val"):
        if name in curves.summary and math.isfinite(curves.summary[name]):
            numbers.setdefault(name, curves.summary[name])
    return found | numbers


def find_runs(patterns: Sequence[str]) -> list[str]:
    """Folders, with * and ? expanded, each once."""
    found = [p for x in patterns for p in (sorted(glob.glob(x)) or [x])]
    return list(dict.fromkeys(found))


def facts_text(facts: Mapping[str, Any]) -> str:
    """The content of `FACTS_FILE`."""
    text = json.dumps(facts, indent=1, default=str, ensure_ascii=False)
    return text.encode(errors="replace").decode() + "\n"  # Names of files may be odd.


def read_facts(folder: str) -> dict[str, Any]:
    """The content of `FACTS_FILE`; empty if there is none, or it is damaged."""
    return _mapping(_read_json(folder, FACTS_FILE, []))
