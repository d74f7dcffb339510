"""Compiles the library of fused operations, in half a minute on two cores.

Each instruction set is compiled with its own flags; see isa.h.
"""

import concurrent.futures
import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from bert_tf import kernels
from bert_tf.errors import RunError

_SECONDS = 600  # That a compiler may take for one file.


def build() -> Path:
    """Builds the library where it is not built yet, beside its source or in the cache.

    Several processes may call it at once, also on hosts that share the folder: one
    compiles, the others wait.

    Returns:
      The library.

    Raises:
      RunError: if there is no compiler, or it fails.
    """
    if found := kernels.library_file():
        return found
    if platform.machine() not in ("x86_64", "AMD64"):
        raise RunError(
            "The fused operations are for x86-64 processors. Received: "
            f"{platform.machine()}. TensorFlow's own operations are used here."
        )
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if not compiler:
        raise RunError(
            "There is no C++ compiler. Install g++, or set CXX; without the fused "
            "operations training is slower."
        )
    folder = kernels.FOLDER if os.access(kernels.FOLDER, os.W_OK) else kernels.CACHE
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".build-lock", "ab") as held:
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(held, fcntl.LOCK_EX)
        if found := kernels.library_file():
            return found  # Another process has built it meanwhile.
        print(
            "Compiling the fused operations (about half a minute)",
            file=sys.stderr,
            flush=True,
        )
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as temporary:
            built = Path(temporary, "library.so")
            compile_library(compiler, built)
            os.replace(built, folder / kernels.library_name())
        return folder / kernels.library_name()


def build_at_first_use() -> None:
    """Builds the library if it is missing and wanted; a line says if that fails."""
    is_wanted = kernels.allowed_isa() != kernels.REFERENCE
    if kernels.library_file() or not is_wanted or kernels.FILE_VARIABLE in os.environ:
        return
    try:
        build()
    except (RunError, OSError) as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)


def compile_library(
    compiler: str, library: Path, more_flags: Sequence[str] = ()
) -> None:
    """Compiles every source by itself, and links them.

    Args:
      compiler: Its command.
      library: The file to write.
      more_flags: For the compiler and the linker.

    Raises:
      RunError: if the compiler fails.
    """
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as temporary:

        def compile_one(source: Path) -> str:
            target = Path(temporary, source.stem + ".o")
            isa = kernels.ISA_FLAGS.get(source.stem.removeprefix("isa_"))
            extra = tf.sysconfig.get_compile_flags() if isa is None else isa
            command = [compiler, *kernels.FLAGS, *more_flags, "-w", *extra]
            command += ["-c", str(source)]
            _run([*command, "-o", str(target)])
            return str(target)

        workers = len(os.sched_getaffinity(0))
        with concurrent.futures.ThreadPoolExecutor(workers) as executor:
            objects = list(executor.map(compile_one, kernels.sources()))
        link = tf.sysconfig.get_link_flags()
        command = [compiler, "-shared", *more_flags, *objects, "-o", str(library)]
        _run([*command, *link])


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{command[0]} took more than {_SECONDS} s.") from None
    if result.returncode:
        raise RunError(
            f"{' '.join(command)} failed:\n{result.stderr[-3000:]}\nInstall a compiler "
            "of C++17 that knows AVX-512 and AMX (g++ 11 or later), or set CXX."
        )
