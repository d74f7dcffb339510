"""Builds Horovod against the installed TensorFlow, and installs it.

Run by `make setup` with the virtual environment's Python. The wheel is kept in
$BERT_TF_CACHE (default ~/.cache/bert_tf), so only the first set-up pays for the build.
Every HOROVOD_* variable is passed through, for instance HOROVOD_GPU_OPERATIONS=NCCL.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bert_tf import resources
from bert_tf.files import remove_unfinished, temporary_folder
from tools.progress_lines import progress_lines

VERSION = "0.28.1"
ARCHIVE = f"horovod-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
PIP = [sys.executable, "-m", "pip"]

# File -> a line that stands in it exactly once, and what takes its place.
PATCHES = {
    # GPU code for XLA, whose headers TensorFlow 2.20 no longer has.
    "horovod/tensorflow/CMakeLists.txt": (
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/'
        'xla_mpi_ops.cc")',
        "",
    ),
    # Headers that g++ 13 wants to be named.
    "horovod/common/common.h": (
        "#include <string>",
        "#include <stdexcept>\n#include <string>",
    ),
    "horovod/common/group_table.h": (
        "#include <mutex>",
        "#include <mutex>\n#include <string>",
    ),
    # A module that Python 3.12 no longer has.
    "horovod/runner/js_run.py": (
        "from distutils.spawn import find_executable",
        "from shutil import which as find_executable",
    ),
}
DEFAULTS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_CPU_OPERATIONS": "MPI",
    "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
}
# The libraries of the virtual environment, seen from site-packages/horovod/tensorflow:
# without it, a cached wheel would load MPI from the environment that it was built in.
RUNPATH = "-Wl,-rpath,$ORIGIN/../../../.."
OLD_SECONDS = 24 * 60 * 60
CHECK = "import horovod.tensorflow as hvd; assert hvd.mpi_built(), 'It lacks MPI.'"


class BuildError(Exception):
    """The build cannot go on; the message says why and what to do."""


def run(command: list[str], problem: str) -> str:
    """Returns the command's output; raises `BuildError` with its words if it fails."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise BuildError(f"{problem} The cause:\n{result.stderr.strip()}")
    return result.stdout


def build_environment() -> dict[str, str]:
    """The defaults, overridden by the caller's environment, tools of the venv first."""
    environment = DEFAULTS | dict(os.environ)
    paths = [sysconfig.get_path("scripts"), environment.get("PATH", "")]
    environment["PATH"] = os.pathsep.join(paths)
    environment["LDFLAGS"] = f"{environment.get('LDFLAGS', '')} {RUNPATH}".strip()
    # 2 GiB for each compiler. What an outer `make` left here is not meant for this one.
    memory = (resources.memory_total() or 2**31) // 2**31
    jobs = max(1, min(8, memory, resources.available_cores()))
    environment["MAKEFLAGS"] = f"-j{jobs}"
    return environment


def build_key(environment: dict[str, str], mpi: str = "") -> str:
    """Names a build by everything that it depends on, `mpi` is the version of MPI."""
    parts = [VERSION, repr(sorted(PATCHES.items())), RUNPATH, sysconfig.get_platform()]
    parts += [sys.implementation.cache_tag, importlib.metadata.version("tensorflow")]
    options = {n: v for n, v in environment.items() if n.startswith("HOROVOD_")}
    parts += [mpi, environment.get("CXX", ""), repr(sorted(options.items()))]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def cache_dir() -> pathlib.Path:
    """Where the archive, wheels and logs are kept between set-ups."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    root = pathlib.Path(os.environ.get("BERT_TF_CACHE") or f"{home}/bert_tf")
    return root.absolute() / "horovod"


def check_tools(environment: dict[str, str]) -> str:
    """Returns MPI's version; raises `BuildError` unless compiler and MPI are there."""
    path = environment["PATH"]
    compiler = environment.get("CXX") or "c++"
    if not shutil.which(compiler.split()[0], path=path):
        raise BuildError(
            f"There is no C++ compiler `{compiler}`. Install one (g++ 9 or newer), "
            "then run `make horovod`."
        )
    mpirun = shutil.which("mpirun", path=path)
    if not mpirun or not shutil.which("mpicxx", path=path):
        raise BuildError(
            "There is no MPI (`mpirun`, `mpicxx`). Install the `mpi` extra (`make "
            "setup` does) or Open MPI 4 or 5 with its headers, then run `make horovod`."
        )
    return run([mpirun, "--version"], "MPI does not run.").partition("\n")[0]


def find_archive(cache: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    """Takes the source archive from the cache, or from the package index."""
    archive = cache / ARCHIVE
    if not archive.is_file():
        # The hash stands here too, because pip runs code of what it downloads.
        wanted = work / "wanted.txt"
        wanted.write_text(f"horovod=={VERSION} --hash=sha256:{ARCHIVE_SHA256}\n")
        command = [*PIP, "download", "-qq", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--require-hashes", "-r", str(wanted)]
        problem = f"{ARCHIVE} cannot be fetched. Try again, or put it into {cache}."
        run([*command, "--dest", str(work)], problem)
        os.replace(work / ARCHIVE, archive)
    check_archive(archive)
    return archive


def check_archive(archive: pathlib.Path) -> None:
    """Raises `BuildError` unless the archive is the known one."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != ARCHIVE_SHA256:
        raise BuildError(
            f"{archive} must have sha256 {ARCHIVE_SHA256}. Received: {found}. Do "
            "not use it: delete it, and run `make horovod`, which fetches it again."
        )


def patch_sources(sources: pathlib.Path) -> None:
    """Applies `PATCHES`; raises `BuildError` if a line is not there exactly once."""
    for name, (old, new) in PATCHES.items():
        file = sources / name
        text = file.read_text()
        if text.count(old) != 1:
            raise BuildError(
                f"{name} must hold the line {old.strip()!r} once. Received: "
                f"{text.count(old)} times. These are not the sources of {VERSION}."
            )
        file.write_text(text.replace(old, new))


def build_wheel(target: pathlib.Path, environment: dict[str, str]) -> None:
    """Builds into a folder beside `target`, then renames it into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of this process: two set-ups may build at once.
    log = target.parent / f"{target.name}-{os.getpid()}.log"
    remove_leftovers(target.parent)
    with temporary_folder(target) as work:
        with tarfile.open(find_archive(target.parent, work)) as tar:
            tar.extractall(work, filter="data")
        sources = work / f"horovod-{VERSION}"
        patch_sources(sources)
        command = [*PIP, "wheel", "-v", "--no-deps", "--no-build-isolation"]
        command += ["--wheel-dir", str(work / "wheel"), str(sources)]
        print(f"Building Horovod {VERSION} (2 to 4 minutes; log: {log})", flush=True)
        with open(log, "w") as output:
            streams = {"stdout": output, "stderr": subprocess.STDOUT}
            failed = subprocess.run(command, env=environment, **streams).returncode
        if not failed:
            os.replace(log, target.parent / f"{target.name}.log")
            try:
                os.rename(work / "wheel", target)
            except OSError:
                if not target.is_dir():  # Else another set-up was faster.
                    raise
    if failed:
        lines = log.read_text(errors="replace").splitlines()
        # pip says a lot after the compiler's words, so those come first.
        lines = [line for line in lines if "error:" in line.lower()][:5] + lines[-15:]
        tail = "\n".join(line[:300] for line in lines)
        raise BuildError(
            f"The build failed. First errors and the end of its log:\n{tail}\nFix "
            f"the first error (the whole log: {log}), then run `make horovod`."
        )


def remove_leftovers(cache: pathlib.Path) -> None:
    """Deletes the folders of builds that were killed; those of running ones stay."""
    remove_unfinished(cache)
    for folder in cache.glob(".build-*"):  # Of earlier versions, which had no lock.
        if time.time() - folder.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def install(wheel: pathlib.Path) -> None:
    """Installs the wheel, and tries it in a separate process."""
    command = [*PIP, "install", "-qq", "--no-deps", "--force-reinstall", str(wheel)]
    run(command, "The wheel of Horovod cannot be installed.")
    problem = f"Horovod does not load. Delete {wheel.parent}, and run `make horovod`."
    run([sys.executable, "-c", CHECK], problem)


def main() -> int:
    """Builds if the cache has no such wheel, and installs if it is not installed."""
    environment = build_environment()
    marker = pathlib.Path(sys.prefix, "horovod-build-key")
    try:
        key = build_key(environment, check_tools(environment))
        installed = marker.is_file() and importlib.util.find_spec("horovod")
        if installed and marker.read_text() == key:
            return 0
        target = cache_dir() / f"horovod-{VERSION}-{key}"
        with progress_lines("Horovod"):
            if not target.is_dir():
                build_wheel(target, environment)
            [wheel] = target.glob("*.whl")
            marker.unlink(missing_ok=True)
            install(wheel)
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    marker.write_text(key)
    print(f"Horovod {VERSION} is installed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
