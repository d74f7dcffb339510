"""The launcher's environment variables, and settings made before TensorFlow loads."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from bert_tf.errors import RunError

# Read by the C library when a program starts: large blocks of memory in pages of 2 MB
# instead of 4 KB. A training step of BERT-base is 1.05 times as fast.
HUGE_PAGES = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
_HUGE_PAGES_OF_LINUX = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Set for each process by Open MPI, by PMI launchers (MPICH, Intel MPI, srun with pmi2)
# and by horovodrun. Slurm's own variables are left out: a shell inside an allocation
# has them too.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")

# What Keras and TensorFlow import only to offer more, if it is there: a third of the
# time that they take to load.
_OPTIONAL_PACKAGES = ("cv2", "googleapiclient", "matplotlib", "pandas", "sklearn")
# Set by `bert-tf launch` for its command.
LAUNCHER_VARIABLE = "BERT_TF_LAUNCHER"


def _first_number(names: tuple[str, ...], default: int) -> int:
    for name in names:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return default


def launched_rank() -> int:
    """Rank of this process among those launched together, from 0."""
    return _first_number(_RANKS, 0)


def launched_size() -> int:
    """How many processes were launched together; 1 without a launcher."""
    return _first_number(_SIZES, 1)


def is_launched() -> bool:
    """Whether a launcher has started this process, perhaps alone."""
    return any(name in os.environ for name in _SIZES)


def report(line: str) -> None:
    """Prints a line on stderr, on the first of the processes launched together."""
    if launched_rank() == 0:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def without_optional_packages() -> Iterator[None]:
    """Makes packages that nobody needs here missing, while TensorFlow is loaded.

    For programs only: a user's own script may want to fit a Keras model to them.
    """
    hidden = [name for name in _OPTIONAL_PACKAGES if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None: an import raises ImportError.
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def leave(code: int) -> NoReturn:
    """Ends a script; all its files are closed by then.

    One of several workers that fails does not wait for the others: a thread may be in a
    sum that never ends. Nor does a process that a signal has stopped: TensorFlow takes
    seconds to free the graph of a long step.
    """
    if code == 0 or (code == 1 and launched_size() == 1):
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


@functools.cache
def _first_process() -> int:
    """The process that was the first to use TensorFlow, also in its forks."""
    return os.getpid()


def require_no_fork() -> None:
    """Refuses to compute in a fork of a process that has used TensorFlow.

    A fork has none of the threads that TensorFlow waits for: it would hang.

    Raises:
      RunError: if this process is one.
    """
    if _first_process() != os.getpid():
        raise RunError(
            "TensorFlow must not be used on both sides of a fork: it would wait "
            f"forever. Received: process {os.getpid()}, a fork of process "
            f"{_first_process()}, which has trained or loaded a model. Do that only "
            'after the fork, or use `multiprocessing.get_context("spawn")`.'
        )


def use_huge_pages() -> None:
    """Restarts this program with `HUGE_PAGES`, where Linux lets programs choose.

    A script calls it first. A value that the user has set is kept.
    """
    name, value = HUGE_PAGES
    try:
        has_choice = "[madvise]" in _HUGE_PAGES_OF_LINUX.read_text(encoding="ascii")
    except OSError:
        return
    if has_choice and name not in os.environ:
        os.environ[name] = value
        os.execv(sys.executable, sys.orig_argv)


def choose_instructions(precision: str) -> None:
    """Sets how oneDNN computes float32 products, before TensorFlow loads it.

    Args:
      precision: The flag's value.
    """
    if precision == "avx-fp32":
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
    elif precision == "bf32":
        os.environ["TF_SET_ONEDNN_FPMATH_MODE"] = "BF16"


def check_launch(horovod: bool) -> None:
    """Refuses several processes that would each train the same model alone.

    Args:
      horovod: Whether --horovod was passed.

    Raises:
      ValueError: if there are several processes and it was not.
    """
    if launched_size() > 1 and not horovod:
        raise ValueError(
            f"{launched_size()} processes were launched but `horovod` is not set: each "
            "would work alone and overwrite the others' files. Pass --horovod."
        )
