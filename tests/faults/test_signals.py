"""SIGTERM, SIGINT, SIGUSR1 and SIGHUP at any moment: the last step is saved."""

import itertools
import json
import random
import re
import signal
import time

import numpy as np
import pytest
import runs
from conftest import make_example, write_records
from faults.counts import IS_FULL, count
from faults.started import Started, script
from integration import finetuning_data

pytestmark = [pytest.mark.slow, pytest.mark.horovod]

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]
MOMENTS = ["set-up", "tracing", "step", "save", "evaluation"]
TARGETS = ["alone", 0, 1]  # A single process, or a rank of two.
STOPPED = 75
# A beat of a second, a micro-batch of milliseconds, a save, mpirun's end of the others.
MOST_SECONDS = 8.0
LONG = 1200  # Micro-batches of a step that takes seconds.


@pytest.fixture(scope="module")
def many_records(tmp_path_factory):
    """Records for a step of a long accumulation on two workers."""
    folder = tmp_path_factory.mktemp("many") / "train"
    folder.mkdir()
    rng = np.random.default_rng(3)
    examples = [make_example(rng) for _ in range(200)]
    write_records(folder / "part-0.tfrecord", examples * (2 * LONG // 200 + 1))
    return folder


@pytest.fixture(scope="module")
def command(tiny_config_file, many_records, tmp_path_factory):
    """Makes the command line of a run that is long at a moment, and what it says."""
    data = tmp_path_factory.mktemp("data")
    model = finetuning_data.write_model(data / "model")
    classes = finetuning_data.write_classes(data / "classes")

    def make(moment, folder, size):
        output = f"--output_dir={folder}"
        if moment == "evaluation":
            arguments = [*model, *classes, *finetuning_data.CLASS_FLAGS, "--do_train"]
            arguments += ["--do_eval", "--evaluate_each_epoch", "--eval_batch_size=1"]
            arguments += ["--num_train_epochs=1000", "--display_loss_steps=1", output]
            return script("run_classifier.py", *arguments, size=size), "After step"
        accumulation = {"step": LONG, "tracing": 50}.get(moment, 2)
        arguments = runs.pretraining_flags(
            *(tiny_config_file, many_records, folder),
            *("--display_loss_steps=1", "--learning_rate=1e-5"),
            *(("--save_checkpoints_steps=1",) if moment == "save" else ()),
            *(f"--seed={size}", output),
            batch=1,
            accumulation=accumulation,
            steps=100_000,
        )
        until = {"set-up": "", "tracing": "steps in all"}.get(moment, "Iteration: 2 ")
        return script("run_pretraining.py", *arguments, size=size), until

    return make


def logged_step(folder):
    """The last step in the log; 0 without one."""
    if not (folder / "bert_dllog.json").exists():
        return 0
    steps = [entry.get("step") for entry in runs.read_log(folder)]
    return max([step for step in steps if isinstance(step, int)], default=0)


def problems(run, folder, name, rank):
    """What of the promise was not kept, after the run has ended."""
    code, seconds = run.finish()
    left = run.end()
    found = [f"exit code {code}"] if code != STOPPED else []
    found += [f"{left} processes left"] if left else []
    found += [f"{seconds:.1f} s"] if seconds > MOST_SECONDS else []
    lines = re.findall(r"Stopped by (SIG\w+)(.*?): (.*)\. The same command", run.text)
    if not lines:
        return [*found, f"no line: {run.text[-500:]}"], seconds
    given, where, state = lines[0]
    found += [f"named {given}"] if given != name else []
    # A signal to mpirun reaches all ranks.
    found += [f"named {where}"] if rank and f"worker {rank} on" not in where else []
    saved = re.search(r"step (\d+) is saved", state)
    step = logged_step(folder)
    if saved is None:
        nothing = "no step was taken" in state
        found += [] if nothing and step == 0 else [f"{state}, after step {step}"]
    else:
        # Other workers may have finished a step that the log does not have yet.
        number = int(saved[1])
        manifest = folder / f"model.ckpt-{number}.json"
        found += [] if number == step else [f"saved {number}, logged {step}"]
        is_there = manifest.exists() and runs.read_json(manifest)["step"] == number
        found += [] if is_there else [f"no checkpoint of step {number}"]
        newest = (folder / "checkpoint").read_text().splitlines()[0]
        found += [] if f"model.ckpt-{number}" in newest else [newest]
    names = [p.name for p in folder.glob("*")] if folder.exists() else []
    found += [f"left {name}" for name in names if "tmp" in name or "partial" in name]
    return found, seconds


def attempts():
    """Signal, target and moment of each attempt; a repeated one at another instant."""
    everything = [
        (number, target, moment)
        for moment, target, number in itertools.product(MOMENTS, TARGETS, SIGNALS)
    ]
    everything += [(signal.SIGUSR1, "mpirun", moment) for moment in MOMENTS]
    more = [x for x in everything if x[2] in ("step", "save", "evaluation")][:35]
    if IS_FULL:
        return everything + more
    return [
        (signal.SIGTERM, "alone", "set-up"),
        (signal.SIGUSR1, "mpirun", "tracing"),
        (signal.SIGHUP, 1, "step"),
        (signal.SIGINT, "alone", "save"),
        (signal.SIGTERM, "alone", "evaluation"),
    ]


def test_a_signal_at_any_moment_saves_the_last_step(command, tmp_path, figure):
    rng, broken, slowest = random.Random(5), {}, 0.0
    tried = attempts()
    for place, (number, target, moment) in enumerate(tried):
        folder = tmp_path / f"run-{place}"
        size = 1 if target == "alone" else 2
        arguments, until = command(moment, folder, size)
        run = Started(*arguments)
        try:
            pid = run.rank(target) if isinstance(target, int) else None
            # Python and the flags take 0.3 s until signals are received; loading
            # TensorFlow and joining the workers takes 5 s.
            run.wait_for(until) if until else None
            time.sleep(rng.uniform(1.0, 4.0) if not until else rng.uniform(0.0, 1.5))
            run.hit(number, pid)
            rank = target if isinstance(target, int) else 0
            found, seconds = problems(run, folder, number.name, rank)
        finally:
            run.end()
        slowest = max(slowest, seconds)
        if found:
            broken[f"{number.name} to {target} in {moment}"] = found
    note = f"slowest to leave: {slowest:.1f} s"
    figure(
        "a signal at any moment: all leave, the last step is saved",
        len(tried) - len(broken),
        len(tried),
        f"{note} {json.dumps(broken)}" if broken else note,
    )


def test_a_stopped_run_resumes_as_if_it_had_not_been(
    tiny_config_file, many_records, tmp_path, figure
):
    def arguments(folder):
        return runs.pretraining_flags(
            *(tiny_config_file, many_records, folder, "--display_loss_steps=1"),
            f"--output_dir={folder}",
            batch=1,
            accumulation=400,
            steps=5,
        )

    runs.run("pretraining", *arguments(tmp_path / "whole"))
    whole = runs.checkpoint_bytes(tmp_path / "whole", 5)
    kept, total = 0, count(1, 6)
    rng = random.Random(1)
    for place in range(total):
        folder = tmp_path / f"run-{place}"
        run = Started(*script("run_pretraining.py", *arguments(folder)))
        try:
            run.wait_for(f"Iteration: {1 + place % 3} ")
            time.sleep(rng.uniform(0.0, 0.4))
            run.hit(SIGNALS[place % 4])
            code, _ = run.finish()
        finally:
            run.end()
        assert code == STOPPED, run.text
        runs.run("pretraining", *arguments(folder))
        kept += runs.checkpoint_bytes(folder, 5) == whole
    figure("stopped by a signal and resumed: the bytes of a whole run", kept, total)
