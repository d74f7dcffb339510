"""Compiles the library of fused operations.

Each instruction set is compiled with its own flags, see isa.h. Those that the compiler
does not support are left out.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.errors import RunError
from bert_tf.files import temporary_folder, whole_file, write_whole

_SECONDS = 600  # Time limit for one file.
_COMPILERS = ("g++", "c++", "clang++")
_NEWER = "g++ 11 or later"
# Uses the instructions of each set, so that an old assembler fails as well.
_PROBE = """
#include <immintrin.h>
#ifdef __AVX512F__
void Vectors(float* x) { _mm512_storeu_ps(x, _mm512_set1_ps(1)); }
#endif
#ifdef __AVX512BF16__
void Halves(__m256bh* y, __m512 x) { *y = _mm512_cvtneps_pbh(x); }
#endif
#ifdef __AMX_BF16__
void Tiles() { _tile_dpbf16ps(0, 1, 2); }
#endif
"""


def build(*, again: bool = True) -> Path:
    """Builds the library, unless one exists that can be loaded.

    It is written next to its source or, where that fails, into the user's cache. Many
    processes may call it at once, also on hosts that share the folder: one compiles,
    the others wait.

    Args:
      again: Whether to compile even if that has failed before: with the same compiler,
        from the same sources.

    Returns:
      The library.

    Raises:
      RunError: if there is no compiler, it fails, or the library cannot be written or
        loaded.
    """
    if reason := fused_ops.wrong_machine():
        raise RunError(
            f"The fused operations cannot be built: {reason}. TensorFlow's own "
            "operations are used here."
        )
    if found := _usable_library(fused_ops.library_name()):
        return found
    compiler = find_compiler()
    isas = known_isas(compiler)
    names = [isa for isa in fused_ops.ISA_FLAGS if isa not in isas]
    if missing := ", ".join(fused_ops.TITLES[isa] for isa in names):
        _report(
            f"{shlex.join(compiler)} does not know {missing}: the fused "
            f"operations are built without ({_NEWER} knows them all; CXX names one)"
        )
    failures = []
    for folder in fused_ops.folders():
        try:
            path = _build_in(folder, compiler, isas, again=again)
        except OSError as error:
            failures.append(f"{folder}: {error.strerror or error}")
            continue
        if reason := fused_ops.why_not_loadable(path):
            raise RunError(
                f"The library was built, but cannot be loaded: {reason}. Name another "
                f"compiler than {shlex.join(compiler)} in CXX."
            )
        return path
    raise RunError(
        f"The library cannot be written ({'; '.join(failures)}). Make one of the "
        "folders writable, or set XDG_CACHE_HOME to one that is."
    )


def build_at_first_use() -> None:
    """Builds the library if it is missing and allowed; prints a line if that fails."""
    is_wanted = fused_ops.allowed_isa() != fused_ops.REFERENCE
    if (
        not is_wanted
        or fused_ops.wrong_machine()
        or os.environ.get(fused_ops.FILE_VARIABLE)
    ):
        return
    try:
        # An undamaged one that only another host can load is kept.
        if not any(map(fused_ops.is_whole, fused_ops.built_libraries())):
            build(again=False)
    except (RunError, OSError) as error:
        _report(f"warning: {error}")


def find_compiler() -> list[str]:
    """The command of the C++ compiler: the words of CXX, or one that is installed.

    Raises:
      RunError: if there is none.
    """
    asked = os.environ.get("CXX", "").strip()
    try:
        words = shlex.split(asked)
    except ValueError:
        words = [asked]  # An unbalanced quotation mark.
    if words and not shutil.which(words[0]):
        raise RunError(
            f"CXX must be the command of a C++ compiler. Received: CXX={asked}, but "
            f"there is no program {words[0]}. Correct it, or unset it for g++."
        )
    found = words or [name for name in _COMPILERS if shutil.which(name)][:1]
    if not found:
        raise RunError(
            f"There is no C++ compiler. Install {_NEWER}, or set CXX; without the "
            "fused operations training is slower."
        )
    return found


def known_isas(compiler: Sequence[str]) -> list[str]:
    """The best instruction set that a compiler supports, and those listed after it.

    Raises:
      RunError: if it supports none.
    """
    names = list(fused_ops.ISA_FLAGS)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "probe.cc")
        source.write_text(_PROBE)
        for number, name in enumerate(names):
            flags = ["-std=c++17", *fused_ops.ISA_FLAGS[name], "-c", str(source)]
            probe = _run([*compiler, *flags, "-o", str(source.with_suffix(".o"))])
            if probe.returncode == 0:
                return names[number:]
    raise RunError(
        f"{shlex.join(compiler)} cannot compile a function for AVX2: "
        f"{_first_error(probe)}. Install {_NEWER}, or set CXX."
    )


def compile_library(
    compiler: Sequence[str],
    library: Path,
    isas: Sequence[str],
    log: Path,
    more_flags: Sequence[str] = (),
) -> None:
    """Compiles each source file and links them.

    Args:
      compiler: Its command.
      library: The file to write, in a folder for the object files.
      isas: The instruction sets to include.
      log: The file for the compiler's output if it fails.
      more_flags: For the compiler and the linker.

    Raises:
      RunError: if the compiler fails.
    """
    log.unlink(missing_ok=True)  # Of an earlier attempt.
    # Hosts with other folders and the same compiler make equal files.
    folders = {fused_ops.FOLDER: "fused_ops", tf.sysconfig.get_include(): "tensorflow"}
    same = [f"-ffile-prefix-map={folder}={name}" for folder, name in folders.items()]
    commands, objects = [], []
    for source in fused_ops.files():
        isa = source.stem.removeprefix("isa_")
        is_left_out = isa in fused_ops.ISA_FLAGS and isa not in isas
        if source.suffix != ".cc" or is_left_out:
            continue
        extra = fused_ops.ISA_FLAGS.get(isa) or tf.sysconfig.get_compile_flags()
        objects.append(str(library.with_name(source.stem + ".o")))
        command = [*compiler, *fused_ops.FLAGS, *more_flags, *same, "-w", *extra]
        commands.append([*command, "-c", str(source), "-o", objects[-1]])
    link = [*compiler, "-shared", *more_flags, *objects, "-o", str(library)]
    workers = len(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(workers) as executor:
        results = list(executor.map(_run, commands))
    if not any(result.returncode for result in results):
        results = [_run([*link, *tf.sysconfig.get_link_flags()])]
    failed = [result for result in results if result.returncode]
    if failed:
        texts = [f"{shlex.join(r.args)}\n{r.stdout}{r.stderr}" for r in failed]
        write_whole(log, "\n".join(texts))
        raise RunError(
            f"{shlex.join(compiler)} failed: {_first_error(failed[0])}. Its output is "
            f"in {log}. Install {_NEWER}, or set CXX."
        )
    if not library.is_file():
        raise RunError(
            f"{shlex.join(compiler)} wrote nothing. Install {_NEWER}, or set CXX."
        )
    library.write_bytes(fused_ops.seal(library.read_bytes()))


def _usable_library(name: str) -> Path | None:
    """A library of that name that can be loaded, if there is one."""
    found = [path for path in fused_ops.built_libraries() if path.name == name]
    return next((path for path in found if not fused_ops.why_not_loadable(path)), None)


def _build_in(
    folder: Path, compiler: Sequence[str], isas: Sequence[str], *, again: bool
) -> Path:
    """Writes the library into a folder, or finds one that others have written.

    Raises:
      RunError: if the compiler fails, or has failed before and must not try `again`.
      OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / fused_ops.library_name(isas[0])
    with open(folder / ".build-lock", "ab") as held:
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(held, fcntl.LOCK_EX)
        if found := _usable_library(path.name):
            return found
        failure, version = path.with_suffix(".failed"), _run([*compiler, "--version"])
        key = hashlib.sha256(f"{compiler} {version.stdout}".encode()).hexdigest()
        if not again and failure.is_file():
            failed, _, reason = failure.read_text().partition("\n")
            if failed == key:
                raise RunError(f"{reason} `python -m bert_tf build` tries again.")
        failure.unlink(missing_ok=True)
        _report("Compiling the fused operations (half a minute on two cores)")
        with temporary_folder(path) as temporary:
            built = temporary / "library.so"
            try:
                compile_library(compiler, built, isas, folder / "library.log")
            except RunError as error:
                write_whole(failure, f"{key}\n{error}")
                raise
            data = built.read_bytes()
        with whole_file(path) as file:
            file.write(data)
    return path


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{command[0]} took more than {_SECONDS} s.") from None
    except OSError as error:
        raise RunError(f"{command[0]} cannot be run: {error}.") from None


def _first_error(result: subprocess.CompletedProcess[str]) -> str:
    """The first line with an error in a compiler's output."""
    lines = result.stderr.splitlines() or [f"exit status {result.returncode}"]
    return next((line for line in lines if "error" in line), lines[-1])


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
