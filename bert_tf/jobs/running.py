"""What every job does around its own work: the workers, one log, and errors."""

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bert_tf.distribute import (
    Communicator,
    configure_devices,
    connect,
    is_worker_loss,
)
from bert_tf.errors import OtherWorkerFailed, RunError
from bert_tf.jobs.agreement import agree
from bert_tf.jobs.compute_path import describe_path, unpad_notes
from bert_tf.jobs.memory import warn_about_memory
from bert_tf.jobs.plan import Plan, prepare_output_dir
from bert_tf.jobs.reporting import thread_warnings
from bert_tf.modeling.models import backends_of
from bert_tf.training.runlog import ConsoleLog, RunLog

Results = dict[str, float]
Prepare = Callable[[Any, Communicator], Plan]
Prefetch = Callable[[Any], None]
Act = Callable[[Any, Communicator, int, RunLog], Results]


def run_job(
    config: Any,  # noqa: ANN401 - a config of any script, in groups
    prepare: Prepare,
    act: Act,
    prefetch: Prefetch = lambda config: None,
) -> Results:
    """Joins the workers, prepares on all of them, and does the work.

    Args:
      config: The settings, in groups `files, optimizer, training, runtime`.
      prepare: Checks everything and builds the plan; fails on all workers if on one.
      act: Does the work: plan, communicator, threads of this worker, log -> results.
      prefetch: Makes, on the first of several workers, files that `prepare` then finds.

    Returns:
      What `act` returns.

    Raises:
      RunError: if the run cannot begin or go on.
    """
    runtime = config.runtime
    communicator = connect(runtime.horovod, runtime.horovod_hierarchical_allreduce)
    threads = configure_devices(communicator, runtime.num_threads)
    log, held = RunLog(), contextlib.ExitStack()
    try:
        path, lines = agree(communicator, config, threads)
        plan, log = _agreed_plan(config, communicator, prepare, prefetch, held)
        backends, use_xla = backends_of(plan.task.model), runtime.use_xla
        lines += warn_about_memory(plan, communicator)
        asked, num_workers = runtime.num_threads, communicator.local_size
        lines += thread_warnings(threads, asked, num_workers)
        lines.append(describe_path(backends, path, use_xla=use_xla))
        lines += unpad_notes(backends)
        for line in lines:
            log.message(line)
        return act(plan, communicator, threads, log)
    except Exception as error:
        if is_worker_loss(error):
            raise OtherWorkerFailed("Another worker stopped.") from error
        if isinstance(error, OSError):
            raise RunError(f"A file cannot be read or written: {error}") from error
        raise
    finally:
        log.close()
        held.close()


def _agreed_plan(
    config: Any,  # noqa: ANN401
    communicator: Communicator,
    prepare: Prepare,
    prefetch: Prefetch,
    held: contextlib.ExitStack,
) -> tuple[Plan, RunLog]:
    """Prepares on every worker; all fail if one does. `held` keeps the folder."""
    error = plan = log = None
    try:
        if communicator.rank == 0:
            prepare_output_dir(config, held)
            if communicator.size > 1:
                prefetch(config)
    except (ValueError, OSError, RunError) as caught:
        error = caught
    communicator.agree(error)
    try:
        plan = prepare(config, communicator)
        log = RunLog()
        if communicator.rank == 0:
            default = os.path.join(config.files.output_dir, "bert_dllog.json")
            path = config.files.dllog_path or default
            log = ConsoleLog(
                path,
                plan.config.optimizer.num_train_steps or 0,
                may_show_bar=communicator.size == 1,
            )
    except (ValueError, OSError, RunError, tf.errors.OpError) as caught:
        error = caught
    communicator.agree(error)
    communicator.agree(_difference_between_workers(plan, communicator))
    return plan, log


def _difference_between_workers(
    plan: Plan, communicator: Communicator
) -> ValueError | None:
    """What the workers do not have in common, though they must."""
    found = {
        "step of the checkpoint": int(plan.optimizer.iterations),
        "accumulation steps": plan.shape.num_micro_batches,
        "micro-batch": plan.shape.micro_batch_size,
        "learning rate": plan.learning_rate,
        "seed": plan.seed,
        "training records": plan.num_train_records,
        "evaluation records": plan.num_eval_records,
        "content of the training records (sha256)": plan.data_sha256,
        **{f"{name} of the architecture": x for name, x in plan.bert.to_dict().items()},
    }
    texts = communicator.gather_texts(json.dumps(found))
    workers = [json.loads(text) for text in texts]
    for name in found:
        values = [worker[name] for worker in workers]
        if any(value != values[0] for value in values):
            return ValueError(
                f"All workers must have the same {name}. Received, by worker: "
                f"{', '.join(map(str, values))}. Give all the same command, and "
                "folders that all of them can read and share."
            )
    return None
