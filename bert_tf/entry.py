"""What every entry script does: parse flags, run a job, print errors as one line."""

import importlib
import os
import sys
import time

from bert_tf import flags
from bert_tf.config.checks import require_environment
from bert_tf.config.paths import check_run
from bert_tf.errors import NonFiniteError, OtherWorkerFailed, RunError, one_line
from bert_tf.launch import (
    check_launch,
    choose_instructions,
    launched_rank,
    launched_size,
)
from bert_tf.standard_streams import keep_printing

# mpirun stops all workers when one ends with an error. The worker that failed must be
# the first one to end, or it is stopped before it has said why.
_SECONDS_FOR_THE_REPORT = 5


def run_script(config_class: type, job: str, arguments: list[str]) -> int:
    """Parses flags before TensorFlow is loaded, then runs the job.

    Args:
      config_class: The class of the script's settings.
      job: Module of `bert_tf.jobs` whose `run` takes them.
      arguments: The command line, program name first.

    Returns:
      The exit code: 0; 1 after an error, printed as one line; 130 after Ctrl-C.
    """
    keep_printing()
    is_first = launched_rank() == 0
    try:
        config = flags.parse(config_class, arguments)
        check_launch(config.runtime.horovod)
        require_environment()
        if launched_size() == 1:  # Workers compare what they find, see `session`.
            check_run(config)
    except flags.HelpRequest as help_request:
        print(help_request)
        return 0
    except (ValueError, OSError) as error:
        if is_first:
            print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    if is_first:
        flags.warn_about_ignored_flags(arguments)
        flags.warn_about_repeated_flags(config_class, arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    choose_instructions(config.runtime.chosen_precision)
    try:
        importlib.import_module(f"bert_tf.jobs.{job}").run(config)
    except RunError as error:
        # All workers compute the same gradient: one of them reports it.
        if isinstance(error, OtherWorkerFailed) or (
            isinstance(error, NonFiniteError) and not is_first
        ):
            time.sleep(_SECONDS_FOR_THE_REPORT)
        else:
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        if is_first and config.training.do_train:
            print(
                "Interrupted. The same command (without --overwrite_output_dir) "
                "resumes from the last checkpoint."
            )
        return 130
    return 0
