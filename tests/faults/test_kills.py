"""Killed at any moment, half of them inside a save, and started again."""

import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import runs
from faults.counts import count, full_only
from integration import finetuning_data
from integration.launching import ROOT, environment
from runs import checkpoint_bytes, logged_values, pretraining_flags

from bert_tf.training import checkpoints

PROMISE = "killed with SIGKILL, resumed, equal to the run that never stopped"
SAVE = re.compile(r"\.model\.ckpt-\d+\..*(tmp|committed)")
EVERY_STEP = (
    *("--save_checkpoints_steps=1", "--display_loss_steps=1"),
    "--keep_checkpoint_max=100000",
)


class Job:
    """A command that is killed, and the folder of the same run that was not."""

    def __init__(self, make, reference, last_step, launcher=()):
        self._make = make
        self.reference = reference
        self.last_step = last_step
        self._launcher = launcher

    def start(self, folder):
        command = [*self._launcher, sys.executable, *self._make(folder)]
        with open(f"{folder}.out", "w") as output:
            return subprocess.Popen(
                [str(part) for part in command],
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )


def workers(folder):
    """Ids of the processes that train in a folder, mpirun not among them."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            is_python = os.path.samefile(words[0], sys.executable)
            if is_python and f"--output_dir={folder}".encode() in words:
                found.append(int(entry.name))
    return found


def is_saving(folder):
    return any(map(SAVE.fullmatch, os.listdir(folder)))


def newest(folder):
    return max(checkpoints.committed_steps(str(folder)), default=0)


def wait_until(process, condition, seconds=600, every=0.005):
    """Whether a condition becomes true before the process ends."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < deadline
        time.sleep(every)
    return False


def wait_for_step(process, folder, step):
    """Whether a checkpoint of some step is saved, or the process ends well."""
    return wait_until(process, lambda: newest(folder) >= step) or not process.returncode


def kill(process, folder, rng, *, in_a_save):
    """Kills a run at a moment after some steps; returns whether it was inside a save.

    Of several ranks one is killed, and mpirun ends the others.
    """
    before = newest(folder)
    goal = before + rng.randrange(1, 4)
    if not wait_until(process, lambda: newest(folder) >= goal):
        return None
    if in_a_save:
        wait_until(process, lambda: is_saving(folder), every=0.0005)
    else:
        time.sleep(rng.random() * 0.1)
    if process.poll() is None:
        victims = workers(folder)
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(victims or [process.pid]), signal.SIGKILL)
    process.wait(timeout=120)
    wait_for_the_end = time.monotonic() + 30
    while workers(folder) and time.monotonic() < wait_for_the_end:
        time.sleep(0.05)
    return is_saving(folder)


def check_resumed(folder, job, last_logged):
    """The step that the next process resumes from; all checkpoints are the same."""
    text = pathlib.Path(f"{folder}.out").read_text()
    found = re.search(r"Resuming from .*model\.ckpt-(\d+) ", text)
    assert found, text[-2000:]
    step = int(found[1])
    assert step >= last_logged - 1, (step, last_logged)
    assert checkpoint_bytes(folder, step) == checkpoint_bytes(job.reference, step)


def kill_many(job, folder, number, rng):
    """Kills and resumes; returns how often all was right, and kills inside a save."""
    kept = inside = done = 0
    run = 0
    while done < number:
        run += 1
        output = pathlib.Path(f"{folder}-{run}")
        output.mkdir()
        last_logged, left = None, set()
        while True:
            process = job.start(output)
            is_last = done == number
            if last_logged is not None:
                assert wait_for_step(process, output, last_logged + 1), output
                # The temporary files of the killed run have been removed.
                assert not left & set(os.listdir(output))
                check_resumed(output, job, last_logged)
                kept += 1
            if is_last:
                process.wait(timeout=900)
                break
            in_a_save = done % 2 == 0
            was_inside = kill(process, output, rng, in_a_save=in_a_save)
            if was_inside is None:
                break  # The end of the training: another one is started.
            done += 1
            inside += was_inside
            left = {name for name in os.listdir(output) if ".bert_tf." in name}
            steps = logged_values(output, "total_loss")
            last_logged = max((step for step, _ in steps), default=0)
        if process.returncode == 0:
            last = job.last_step
            assert checkpoint_bytes(output, last) == checkpoint_bytes(
                job.reference, last
            )
            assert not [n for n in os.listdir(output) if "tmp" in n or "bert_tf" in n]
    return kept, inside


@pytest.fixture
def pretraining(tiny_config_file, tiny_records, tmp_path):
    """A tiny pre-training of 16 records per step."""

    def make(folder, *more):
        return pretraining_flags(
            *(tiny_config_file, tiny_records, folder, *EVERY_STEP, *more),
            batch=4,
            accumulation=2,
            steps=count(40, 400),
        )

    def job(*more, launcher=()):
        reference = tmp_path / "reference"
        runs.run("pretraining", *make(reference))
        script = ROOT / "run_pretraining.py"
        return Job(
            lambda folder: [script, *make(folder, *more)],
            *(reference, count(40, 400), launcher),
        )

    return job


def test_a_killed_pretraining_resumes(pretraining, tmp_path, figure):
    number = count(3, 70)
    kept, inside = kill_many(pretraining(), tmp_path / "run", number, random.Random(1))
    figure(PROMISE, kept, number, f"{inside} of {number} inside a save")


@full_only
def test_a_killed_fine_tuning_resumes(tmp_path, figure):
    model = finetuning_data.write_model(tmp_path / "model")
    data = finetuning_data.write_classes(tmp_path / "classes")

    def make(folder):
        return [
            *(*model, *data, *finetuning_data.CLASS_FLAGS, *EVERY_STEP),
            *("--num_train_steps=150", "--do_train", "--do_eval"),
            *("--evaluate_each_epoch", f"--output_dir={folder}"),
        ]

    reference = tmp_path / "reference"
    runs.run("classifier", *make(reference))
    job = Job(
        lambda folder: [ROOT / "run_classifier.py", *make(folder)], reference, 150
    )
    kept, inside = kill_many(job, tmp_path / "run", 15, random.Random(2))
    figure(PROMISE, kept, 15, f"fine-tuning: {inside} of 15 inside a save")


@pytest.mark.horovod
@full_only
def test_a_killed_rank_of_two_resumes(tiny_config_file, tiny_records, tmp_path, figure):
    launcher = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    launcher += ["-np", "2"]

    def make(folder):
        flags = pretraining_flags(
            *(tiny_config_file, tiny_records, folder, *EVERY_STEP, "--horovod"),
            batch=4,
            accumulation=2,
            steps=120,
        )
        return [ROOT / "run_pretraining.py", *flags]

    reference = tmp_path / "reference"
    job = Job(make, reference, 120, launcher)
    assert job.start(reference).wait(timeout=900) == 0
    kept, inside = kill_many(job, tmp_path / "run", 15, random.Random(3))
    figure(PROMISE, kept, 15, f"2 ranks: {inside} of 15 inside a save")
