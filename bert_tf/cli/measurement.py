"""Measures allreduces and steps on this machine, and keeps them in a JSON file."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_tf import resources
from bert_tf.config.model import PRESETS, BertConfig
from bert_tf.config.planning import PlanConfig
from bert_tf.errors import RunError, counted, shown
from bert_tf.files import write_whole
from bert_tf.json_files import read_json_object
from bert_tf.launch import choose_instructions, report
from bert_tf.scaling import (
    Cluster,
    Link,
    Point,
    fit_allreduce,
    fit_step,
    flops_per_sequence,
    num_gradients,
)

FORMAT = 1
_WORKER = "bert_tf.jobs.measuring"
_RANKS = (1, 2, 4)
_PRESETS = ("tiny", "mini", "small")
_REPEATS = 9
# Micro-batches of the measured steps.
STEPS = (1, 2)
# Bytes of a worker: of its program, and for a byte of gradients, of their sums and of
# Horovod's buffers.
_PROGRAM, _COPIES = 600 << 20, 3
_END_SECONDS = 5.0
# Whether steps are measured, or allreduces -> what makes that faster.
_REMEDIES = {
    True: "a smaller --train_batch_size or a smaller model; or --throughput, so that "
    "no steps are measured",
    False: "or a smaller model, whose gradients are summed; or leave out --measure and "
    "pass --local_latency_seconds and --local_bytes_per_second",
}
_REMEDY = "Measure again with --measure, or correct the file."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on a machine.

    Attributes:
      host: A cluster of this machine alone.
      device_flops: FLOP/s that a worker of one core reaches; None if not measured.
      conditions: What device_flops was measured with: precision, architecture, lengths
        and micro-batch, by name.
      update_seconds_per_number: Time of an optimizer step for each weight.
    """

    host: Cluster
    device_flops: float | None = None
    conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    update_seconds_per_number: float | None = None


def measure(config: PlanConfig, bert: BertConfig) -> None:
    """Measures on 1, 2 and 4 workers, and writes `link_file`.

    Raises:
      RunError: if mpirun or Horovod are missing, or a run fails or takes too long.
    """
    choose_instructions(config.precision)
    models = _measured_models(config, bert)
    has_device = config.throughput is not None or config.device_flops is not None
    if max(config.worker_counts) < max(_RANKS):
        report(
            "2 and 4 workers are measured, whatever --workers is: the fit of the "
            "allreduce needs two numbers of workers above 1."
        )
    points, steps = [], []
    sums = [dataclasses.asdict(model) for model in models]
    for workers in _RANKS:
        work = {"allreduces": sums, "steps": []}
        if workers == 1:  # It has nothing to sum.
            if has_device:
                continue
            work = {"allreduces": [], "steps": STEPS}
        result = run_workers(workers, config, bert, work)
        points += [
            Point(workers, int(found["bytes"]), float(found["seconds"]))
            for found in result["allreduces"]
        ]
        steps += result["steps"]
    cores = config.cores_per_host or resources.available_cores()
    host = fit_allreduce(points, cores)
    content: dict[str, Any] = {
        "format": FORMAT,
        "cores": cores,
        "allreduce": {
            "start_seconds": host.start_seconds,
            "copy_seconds_per_byte": host.copy_seconds_per_byte,
            **dataclasses.asdict(host.local),
        },
        "points": [dataclasses.asdict(point) for point in points],
    }
    if steps:
        content["step"] = _describe_step(config, bert, steps)
    os.makedirs(os.path.dirname(os.path.abspath(config.link_file)), exist_ok=True)
    write_whole(config.link_file, json.dumps(content, indent=2) + "\n")
    report(f"Written to {config.link_file}.")


def _describe_step(
    config: PlanConfig, bert: BertConfig, steps: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    counts = [step["micro_batches"] for step in steps]
    micro_batch, update = fit_step(counts, [step["seconds"] for step in steps])
    if not micro_batch:
        raise RunError(
            "Steps of two micro-batches were not slower than of one: the machine is "
            "too busy to measure them. Measure again, or pass --throughput."
        )
    conditions = conditions_of(config, bert)
    lengths = (conditions["max_seq_length"], conditions["max_predictions_per_seq"])
    flops = config.train_batch_size * flops_per_sequence(bert, *lengths)
    return {
        "device_flops": flops / micro_batch,
        "update_seconds_per_number": update / num_gradients(bert),
        "micro_batch_seconds": micro_batch,
        "update_seconds": update,
        **conditions,
    }


def conditions_of(config: PlanConfig, bert: BertConfig) -> dict[str, Any]:
    """What the speed of a worker was measured with, or is planned for, by name."""
    recipe = config.chosen_recipe
    return {
        "precision": config.precision,
        "train_batch_size": config.train_batch_size,
        "max_seq_length": recipe.max_seq_length,
        "max_predictions_per_seq": recipe.max_predictions_per_seq,
        "bert": bert.to_dict(),
    }


def _measured_models(config: PlanConfig, bert: BertConfig) -> list[BertConfig]:
    """Architectures whose gradients are summed: small ones, and that of the plan."""
    models = [PRESETS[name] for name in _PRESETS]
    models += [bert] if bert not in models else []
    free = resources.memory_free()
    if free is None:
        return models
    limit = 0.8 * free / max(_RANKS) - _PROGRAM
    fitting = [m for m in models if 4 * _COPIES * num_gradients(m) < limit]
    if len(fitting) < 2:
        raise RunError(
            f"A measurement with {max(_RANKS)} workers needs at least 4 GiB of free "
            f"memory, and there are {free / 2**30:.1f}. Free some, or pass what is "
            "known of the machine: see python -m bert_tf plan --help."
        )
    if bert not in fitting:
        report(
            "The gradients of this model are too large to be summed here by "
            f"{max(_RANKS)} workers: those of smaller ones are measured."
        )
    return fitting


def run_workers(
    workers: int, config: PlanConfig, bert: BertConfig, work: dict[str, Any]
) -> dict[str, Any]:
    """Runs a measurement on workers of this machine; see `bert_tf.jobs.measuring`.

    Args:
      workers: How many.
      config: The plan: lengths, micro-batch, precision and the time limit.
      bert: Architecture of the steps.
      work: The allreduces and steps of the request.

    Raises:
      RunError: if it fails, or takes longer than `measure_seconds`.
    """
    recipe, seconds = config.chosen_recipe, config.measure_seconds
    request = work | {
        "workers": workers,
        "bert": bert.to_dict(),
        "rows": config.train_batch_size,
        "length": recipe.max_seq_length,
        "predictions": recipe.max_predictions_per_seq,
        "precision": config.precision,
        "repeats": _REPEATS,
        # A little more than this process waits.
        "seconds": int(seconds + 2 * _END_SECONDS),
    }
    report(f"Measuring {counted(workers, 'worker')}, for at most {seconds} s.")
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder, "request.json"), Path(folder, "result.json")
        errors = Path(folder, "errors")
        asked.write_text(json.dumps(request))
        command = [sys.executable, "-m", _WORKER, str(asked), str(found)]
        with errors.open("w") as file:
            code = _run([*_launcher(workers), *command], file.fileno(), seconds)
        if code is None:
            raise RunError(
                f"Measuring {counted(workers, 'worker')} took longer than {seconds} s. "
                "Pass a larger --measure_seconds (default: "
                f"{PlanConfig.measure_seconds}), {_REMEDIES[bool(work['steps'])]}."
            )
        if code or not found.exists():
            lines = errors.read_text(errors="replace").splitlines()
            told = [line for line in lines if "error: " in line] or lines[-1:]
            reason = told[0].partition("error: ")[2] or told[0] if told else ""
            raise RunError(
                f"Measuring {counted(workers, 'worker')} failed with exit code {code}: "
                f"{reason or 'it printed nothing'}"
            )
        result = read_json_object(found)
    for sums in result["allreduces"]:
        num_bytes, took = sums["bytes"], sums["seconds"]
        report(f"  allreduce of {num_bytes / 1e6:.1f} MB: {took * 1e3:.1f} ms")
    for step in result["steps"]:
        took = step["seconds"]
        report(f"  step of {step['micro_batches']} micro-batches: {took:.3f} s")
    return result


def _launcher(workers: int) -> list[str]:
    if workers == 1:
        return []
    folders = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    mpirun = shutil.which("mpirun", path=os.pathsep.join(folders))
    if mpirun is None:
        raise RunError(
            "mpirun is missing, which starts several workers. Run `make setup`, which "
            "installs it, or pass what is known of the links: see python -m bert_tf "
            "plan --help."
        )
    options = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    options += ["--oversubscribe", "--bind-to", "none"]
    return [mpirun, *options, "-np", str(workers)]


def _run(command: Sequence[str], errors: int, seconds: float) -> int | None:
    """The exit code of a command, or None if it was ended after so many seconds."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:  # Also of Ctrl-C and SIGTERM.
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                try:
                    process.wait(_END_SECONDS)
                except subprocess.TimeoutExpired:
                    continue


def read_link_file(path: str) -> Measured:
    """Reads what `measure` has written.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not of that form; the message names the key.
    """
    content = read_json_object(path, remedy=_REMEDY)
    _require(content.get("format") == FORMAT, path, "format", content, f"be {FORMAT}")
    sums = _object(content, "allreduce", path)
    per_byte = _number(sums, "seconds_per_byte", path)
    copied = _number(sums, "copy_seconds_per_byte", path)
    if not per_byte and not copied:
        rule = "be greater than 0 if copy_seconds_per_byte is 0"
        _require(False, path, "seconds_per_byte", sums, rule)
    cores = _number(content, "cores", path, above=0.0)
    host = Cluster(
        workers_per_host=max(_RANKS),
        cores_per_host=cores,
        local=Link(
            latency_seconds=_number(sums, "latency_seconds", path),
            seconds_per_byte=per_byte,
        ),
        network=None,
        start_seconds=_number(sums, "start_seconds", path),
        copy_seconds_per_byte=copied,
    )
    if "step" not in content:
        return Measured(host=host)
    step = _object(content, "step", path)
    keys = ("precision", "train_batch_size", "max_seq_length")
    keys += ("max_predictions_per_seq", "bert")
    for key in keys:
        _require(key in step, path, key, step, "be there")
    return Measured(
        host=host,
        device_flops=_number(step, "device_flops", path, above=0.0),
        conditions={key: step[key] for key in keys},
        update_seconds_per_number=_number(step, "update_seconds_per_number", path),
    )


def _object(values: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    is_object = isinstance(values.get(key), dict)
    _require(is_object, path, key, values, "be an object")
    return values[key]


def _number(
    values: dict[str, Any], key: str, path: str, above: float | None = None
) -> float:
    value = values.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_valid = is_number and 0 <= value < 1e18 and (above is None or value > above)
    rule = "be a number of at least 0" if above is None else "be a number above 0"
    _require(is_valid, path, key, values, rule)
    return float(value)


def _require(
    is_valid: bool, path: str, key: str, values: dict[str, Any], rule: str
) -> None:
    if not is_valid:
        found = shown(values[key]) if key in values else "no such key"
        raise ValueError(f"{path}: `{key}` must {rule}. Received: {found}. {_REMEDY}")
