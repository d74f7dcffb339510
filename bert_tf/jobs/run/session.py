"""What surrounds every job: the workers, their agreement, one log, and errors."""

import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

from bert_tf.config.run import RunConfig
from bert_tf.distribute import (
    Communicator,
    configure_devices,
    connect,
    is_worker_loss,
)
from bert_tf.errors import (
    OtherWorkerFailed,
    RunError,
    Stopped,
    WorkerLost,
    one_line,
)
from bert_tf.evaluation.metrics import write_results
from bert_tf.jobs.run.agreement import agree, agree_on_plan, agreement
from bert_tf.jobs.run.compute_path import (
    ComputePath,
    describe_path,
    unpad_notes,
    xla_notes,
)
from bert_tf.jobs.run.fingerprint import CHANGEABLE_SETTINGS, TITLES
from bert_tf.jobs.run.memory import Rows, estimate_training, memory_warnings
from bert_tf.jobs.run.messages import describe_run, thread_warnings
from bert_tf.jobs.run.output_dir import (
    check_model_files,
    no_traces,
    take_output_dir,
)
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.received_files import receive_files
from bert_tf.jobs.run.reporting import RunReport
from bert_tf.jobs.run.saving import CheckpointSaver
from bert_tf.jobs.run.stopping import Heartbeat
from bert_tf.jobs.run.used_folder import log_file
from bert_tf.jobs.run.watchdog import Watchdog
from bert_tf.launch import (
    LAUNCHER_VARIABLE,
    launched_rank,
    launched_size,
    report,
)
from bert_tf.modeling.models import backends_of
from bert_tf.report.run_files import RESULTS_FILE
from bert_tf.signals import StopRequest
from bert_tf.stages import stage
from bert_tf.training.runlog import ConsoleLog, RunLog
from bert_tf.training.trackers import Trackers

AnyPlan = TypeVar("AnyPlan", bound=Plan)

_MPIRUN_LINE = (
    "Ctrl-C makes mpirun kill its workers, and steps since the last checkpoint are "
    "lost. `python -m bert_tf launch -- mpirun ...` saves them."
)


@dataclasses.dataclass
class Session:
    """The workers of a run, and its log.

    Attributes:
      communicator: The workers.
      threads: Of this worker.
      log: Writes nothing before the plan is made, and on all workers but the first.
      path: How all workers compute.
      notes: Lines for the log.
      open_until: Closes log and folder.
      hosts: Of the workers, by rank.
      stop: A signal that ends the run early.
      watchdog: Ends a worker that waits forever.
      saver: Saves checkpoints, on the first worker; None before the training.
      report: Writes the report, on the first worker; None before the plan is made.
    """

    communicator: Communicator
    threads: int = 1
    log: RunLog = dataclasses.field(default_factory=RunLog)
    path: ComputePath | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    open_until: contextlib.ExitStack = dataclasses.field(
        default_factory=contextlib.ExitStack
    )
    hosts: list[str] = dataclasses.field(default_factory=lambda: ["this host"])
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)
    watchdog: Watchdog = dataclasses.field(default_factory=Watchdog)
    saver: CheckpointSaver | None = None
    report: RunReport | None = None

    @property
    def is_first(self) -> bool:
        """Whether this worker writes files."""
        return self.communicator.rank == 0

    def averaged(self, plan: Plan) -> contextlib.AbstractContextManager[object]:
        """Has the moving averages of a plan, if there are any, in its model inside."""
        if plan.averages is None:
            return contextlib.nullcontext()
        return plan.averages.in_model(self.stop.writing)

    def make_plan(
        self,
        config: RunConfig,
        prepare: Callable[[RunConfig, Communicator], AnyPlan],
        prefetch: Callable[[RunConfig], None] | None = None,
    ) -> AnyPlan:
        """Prepares the run on every worker; all of them fail if one does.

        Args:
          config: The settings.
          prepare: Checks everything and builds the plan.
          prefetch: Writes, on the first of several workers, files that `prepare` then
            finds on all of them.

        Returns:
          The plan, with equal weights and state on all workers.

        Raises:
          RunError: if the run cannot start.
          OtherWorkerFailed: if that is so on another worker.
        """
        communicator = self.communicator
        kept = no_traces(config.files.output_dir) if self.is_first else None
        try:
            with (
                stage("Preparing data and model"),
                kept or contextlib.nullcontext(),
            ):
                plan = self._prepare(config, prepare, prefetch)
        except (RunError, OtherWorkerFailed):
            for line in self.notes:  # What was moved in the folder, for one.
                report(line)
            raise
        for line in [*self.notes, *self._warnings(plan)]:
            self.log.message(line)
        communicator.broadcast(plan.variables)
        return plan

    def _prepare(
        self,
        config: RunConfig,
        prepare: Callable[[RunConfig, Communicator], AnyPlan],
        prefetch: Callable[[RunConfig], None] | None,
    ) -> AnyPlan:
        """Takes the folder, makes the plan, and opens the log; see `make_plan`."""
        communicator, plan = self.communicator, None
        with agreement(communicator):
            if self.is_first:
                self.notes += take_output_dir(config, self.open_until)
        received = receive_files(config, communicator, self.hosts, self.open_until)
        config, self.watchdog.is_shared = received.config, received.is_shared
        self.notes += [received.note] if received.note else []
        with agreement(communicator):
            if self.is_first or received.folder:
                if config.training.do_train:
                    self.watchdog.forget_reports()
                if prefetch and communicator.size > 1:
                    prefetch(config)
        with agreement(communicator):
            plan = prepare(config, communicator)
        agree_on_plan(communicator, plan_facts(plan))
        with agreement(communicator):
            received.drop_tensors()
            if self.is_first:
                if config.training.do_train and not plan.start.is_own:
                    check_model_files(config, plan.model_files)
                self.log = _open_log(plan)
                self.notes += self.log.notes
                self.open_until.push(
                    # Others leave some seconds after an error.
                    lambda kind, *_: self.log.close(
                        is_stopped=kind is Stopped
                        or (kind is not None and communicator.size > 1)
                    )
                )
                self._begin_report(config, plan)
        return plan

    def _begin_report(self, config: RunConfig, plan: Plan) -> None:
        """Has the report written when the run ends, while the log is still open."""
        report = self.report = RunReport(config, self.log)
        report.begin(plan, self.hosts, self.threads)
        size = self.communicator.size
        self.open_until.push(lambda _, error, trace: report.end(error, size))

    def report_results(self, plan: Plan, results: dict[str, float]) -> dict[str, float]:
        """Writes eval_results.txt and .json on the first worker; returns all."""
        results = results | {"global_step": plan.step}
        if self.is_first:
            path = os.path.join(plan.config.files.output_dir, RESULTS_FILE)
            write_results(path, results)
            self.log.summary(results)
            for name in sorted(results):
                self.log.message(f"{name} = {results[name]:.6g}")
            self.log.message(f"Written to {path} and .json.")
        return results

    def _warnings(self, plan: Plan) -> list[str]:
        """What may make the run fail, or slower than it could be."""
        runtime, backends = plan.config.runtime, backends_of(plan.task.model)
        lines, trained = [], plan.training_set
        num_workers = self.communicator.local_size
        if trained:
            rows = Rows(
                plan.config.batch.train_batch_size,
                trained.max_seq_length,
                trained.max_predictions,
            )
            dtype = backends.fused_dtype
            estimate = estimate_training(
                plan.bert,
                rows,
                fused_bytes=dtype.size if dtype else 0,
                exempt=backends.exempt,
                recompute=runtime.recompute,
                num_workers=self.communicator.size,
                saves=self.is_first and not plan.config.saving.saves_nothing,
                has_averages=plan.averages is not None,
                shards_optimizer=runtime.shard_optimizer,
            )
            lines += memory_warnings(
                estimate, rows, num_workers, recompute=runtime.recompute
            )
        lines += thread_warnings(self.threads, runtime.num_threads, num_workers)
        if (
            trained
            and self.communicator.size > 1
            and LAUNCHER_VARIABLE not in os.environ
        ):
            lines.append(_MPIRUN_LINE)
        lines.append(describe_path(backends, self.path, use_xla=runtime.use_xla))
        if runtime.use_xla:
            lines += xla_notes(backends)
        return lines + unpad_notes(backends)


@contextlib.contextmanager
def open_session(
    config: RunConfig, stop: StopRequest | None = None
) -> Iterator[Session]:
    """Joins the workers of a run, for the calls inside.

    Args:
      config: The settings.
      stop: A signal that ends the run early.

    Yields:
      The session; its log and its folder are closed at the end.

    Raises:
      RunError: if the run cannot start or continue.
      OtherWorkerFailed: if another worker has stopped.
    """
    runtime, folder = config.runtime, config.files.output_dir
    hosts = [""] * launched_size()
    watchdog = Watchdog(runtime.watchdog_seconds, folder, launched_rank(), hosts)
    joining = contextlib.nullcontext()
    if launched_size() > 1:
        joining = stage(f"Connecting {launched_size()} workers")
    with watchdog.joining(), joining:
        communicator = connect(
            runtime.horovod,
            runtime.horovod_hierarchical_allreduce,
            runtime.horovod_fusion_threshold,
            runtime.horovod_compression,
        )
    stop = stop or StopRequest()
    stop.receive_again()
    threads = configure_devices(communicator, runtime.num_threads)
    with contextlib.ExitStack() as open_until:
        try:
            open_until.callback(watchdog.close)
            watchdog.rank, watchdog.hosts = communicator.rank, [""] * communicator.size
            presence = Heartbeat(communicator, name="presence")
            # After an error others may be waiting elsewhere than in this end.
            open_until.push(lambda kind, *_: presence.end(wait=kind is None))
            if communicator.size > 1:
                watchdog.follow(presence)
            path, notes = agree(communicator, config, threads)
            watchdog.hosts = communicator.gather_values(socket.gethostname())
            yield Session(
                communicator,
                threads,
                path=path,
                notes=[*communicator.notes, *notes],
                open_until=open_until,
                hosts=watchdog.hosts,
                stop=stop,
                watchdog=watchdog,
            )
        except Exception as error:
            if is_worker_loss(error):
                raise WorkerLost(
                    "another worker was lost without an error message. The same "
                    "command, without --overwrite_output_dir, resumes from the last "
                    "checkpoint, if there is one."
                ) from error
            if isinstance(error, OSError):
                raise RunError(one_line(error)) from error
            raise


def _open_log(plan: Plan) -> ConsoleLog:
    """The log, and the trackers that it passes values on to."""
    files, trackers = plan.config.files, Trackers()
    path = log_file(files)
    log = ConsoleLog(path, plan.last_step, trackers)
    log.notes += trackers.open(
        plan.config.runtime.trackers,
        files.output_dir,
        plan.settings(),
        describe_run(plan),
        plan.step + 1 if plan.training_set else None,
    )
    return log


def plan_facts(plan: Plan) -> dict[str, object]:
    """What must be equal on all workers, by name."""
    return {
        "step of the checkpoint": plan.step,
        "accumulation steps": plan.shape.num_micro_batches,
        "micro-batch": plan.shape.micro_batch_size,
        "training steps": plan.config.optimizer.num_train_steps,
        "learning rate": plan.learning_rate,
        "seed": plan.seed,
        "checksum of the weights to start from": plan.weights_crc32c,
        **{name: getattr(plan.bert, name) for name in CHANGEABLE_SETTINGS},
        **{
            f"{name} of the {TITLES[entry]}": value
            for entry, values in plan.fingerprint.items()
            for name, value in values.items()
        },
    }
