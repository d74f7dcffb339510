"""What every entry script does: parse flags, run a job, print errors as one line."""

import contextlib
import importlib
import logging
import os
import socket
import sys
import time
import traceback

from bert_tf import flags, recipes
from bert_tf.config.checks import require_threads
from bert_tf.config.paths import check_run
from bert_tf.errors import (
    NonFiniteError,
    NotConverged,
    OtherWorkerFailed,
    RunError,
    Stopped,
    WorkerLost,
    printable,
)
from bert_tf.launch import (
    check_launch,
    choose_instructions,
    launched_rank,
    launched_size,
    without_optional_packages,
)
from bert_tf.signals import StopRequest
from bert_tf.stages import stage
from bert_tf.standard_streams import keep_printing

# mpirun stops all workers when one ends with an error. The worker that failed must be
# the first one to end, or it is stopped before it has said why.
_SECONDS_FOR_THE_REPORT = 5

# Exit codes, which docs/operations.md explains.
FAILED = 1
NOT_CONVERGED = 3
WORKER_LOST = 71


def run_script(config_class: type, job: str, arguments: list[str]) -> int:
    """Parses flags before TensorFlow is loaded, then runs the job.

    Args:
      config_class: The class of the script's settings.
      job: Module of `bert_tf.jobs` whose `run` takes them.
      arguments: The command line, program name first.

    Returns:
      The exit code: 0; 1 after an error, printed as one line; 3 without the accuracy
      that was asked for; 71 where another worker was lost; after a signal 75 if a
      training was asked for, else 128 and its number.
    """
    keep_printing()
    # What the package logs looks like other lines.
    logging.basicConfig(format="%(message)s")
    is_first = launched_rank() == 0
    try:
        config = flags.parse(config_class, arguments)
        check_launch(config.runtime.horovod)
        require_threads(config.runtime.num_threads)
        check_run(config)
        if is_first:
            flags.warn_about_ignored_flags(arguments)
            flags.warn_about_values(config_class, arguments)
    except flags.HelpRequest as help_request:
        print(help_request)
        return 0
    except (ValueError, OSError) as error:
        return _refuse(error, config_class, arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    choose_instructions(config.runtime.chosen_precision)
    stop = StopRequest(
        resumes=config.training.do_train and not config.saving.saves_nothing,
        overwrites=config.files.overwrite_output_dir,
    )
    with stop.received():
        try:
            with stop.raised():
                if launched_size() == 1:  # Several workers compare what they find.
                    from bert_tf.jobs import early_check  # It loads NumPy.

                    try:
                        early_check.check(config)
                    except (ValueError, OSError, RunError) as error:
                        return _refuse(error, config_class, arguments)
                with stage("Loading TensorFlow"), without_optional_packages():
                    module = importlib.import_module(f"bert_tf.jobs.{job}")
                module.run(config, stop)
        except Stopped:
            return stop.finish()
        except NotConverged as error:
            if is_first:
                print(error, file=sys.stderr, flush=True)
            else:
                with contextlib.suppress(Stopped):  # mpirun ends this worker meanwhile.
                    time.sleep(_SECONDS_FOR_THE_REPORT)
            return NOT_CONVERGED
        except RunError as error:
            return _report(error, stop)
        except (Exception, SystemExit) as error:
            if launched_size() == 1 and not isinstance(error, SystemExit):
                raise
            _report_unexpected(error)
            return FAILED
    return 0


def _refuse(error: Exception, config_class: type, arguments: list[str]) -> int:
    """Prints what is wrong with the flags, or what they name; returns the exit code."""
    where = ""
    if launched_rank():  # mpirun ends this worker meanwhile, if the first fails too.
        time.sleep(_SECONDS_FOR_THE_REPORT)
        where = f"{this_worker()}: "
    text = printable(error)
    line = recipes.line_of(arguments, text, flags.aliases_of(config_class))
    print(f"error: {where}{line}{text}", file=sys.stderr, flush=True)
    return FAILED


def _report(error: RunError, stop: StopRequest) -> int:
    """Prints an error, on the worker whose error it is; returns the exit code."""
    # All workers compute the same gradient: one of them reports it.
    is_of_another = isinstance(error, OtherWorkerFailed) or (
        isinstance(error, NonFiniteError) and launched_rank() != 0
    )
    if not is_of_another:
        print(f"error: {printable(error)}", file=sys.stderr, flush=True)
        return FAILED
    with contextlib.suppress(Stopped):  # mpirun ends this worker meanwhile.
        time.sleep(_SECONDS_FOR_THE_REPORT)
    if not isinstance(error, WorkerLost):
        return FAILED
    if stop.is_known:  # The first worker has saved, and has left.
        return stop.code
    # mpirun would have ended this worker by now, had it seen the other one end.
    print(f"error: {this_worker()}: {error}", file=sys.stderr, flush=True)
    return WORKER_LOST


def _report_unexpected(error: BaseException) -> None:
    """Prints an error that no user can fix, with its traceback."""
    described = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SystemExit):
        described = f"the program was left in the middle of a run ({described})"
    trace = "".join(traceback.format_exception(error))
    line = f"error: {this_worker()}: {described}"
    print(f"{trace}{line}", file=sys.stderr, flush=True)


def this_worker() -> str:
    """Rank and host of this process, for messages."""
    return f"worker {launched_rank()} on {socket.gethostname()}"
