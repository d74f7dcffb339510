"""Cores and memory of the machine that this process may use, and its time so far.

A container is limited by its control groups (cgroups, version 1 or 2), which neither
the affinity nor /proc/meminfo show. Each group above a process limits it too, so that
the smallest limit counts.
"""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from bert_tf.errors import counted

ROOT = Path("/")  # Where /proc and the control groups are.
_LOADED = time.monotonic()


def _text(path: str | Path) -> str:
    """A file of the kernel; empty where there is none."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _own_paths() -> dict[str, str]:
    """Controller -> path of this process's group; "" is version 2."""
    paths = {}
    for line in _text("proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _plain(name: str) -> str:
    """A name from mountinfo, which escapes spaces as octal numbers."""
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), name)


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Controller ("" is version 2), the mounted group, and its mount point."""
    for line in _text("proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mounted, mount_point = (_plain(name) for name in before.split()[3:5])
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2":
            yield "", mounted, mount_point
        elif kind == "cgroup":
            for option in options.split(","):
                yield option, mounted, mount_point


def _groups(controller: str) -> Iterator[tuple[bool, Path]]:
    """The folders of this process's groups, from its own up to the one mounted.

    Yields:
      Whether it is of version 2, and the folder.
    """
    own = _own_paths()
    for name, mounted, mount_point in _mounts():
        if name not in ("", controller) or name not in own:
            continue
        top = ROOT / mount_point.lstrip("/")
        # Without a separate namespace, a container sees the host's names of groups
        # and its own group alone, mounted at the top. A path with .. is outside of it.
        inner = os.path.relpath(own[name], mounted)
        folder = top if inner.startswith("..") else top / inner
        yield not name, folder
        while folder != top:
            folder = folder.parent
            yield not name, folder


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # "max", or no such file.


def cpu_limit() -> float | None:
    """How many cores' time the control groups allow; None without a limit."""
    limits = []
    for is_version_2, folder in _groups("cpu"):
        if is_version_2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota = _text(folder / "cpu.cfs_quota_us")
            period = _text(folder / "cpu.cfs_period_us")
        time, of = _number(quota), _number(period)
        if time and of and time > 0:  # -1: no limit.
            limits.append(time / of)
    return min(limits, default=None)


def memory_limit() -> int | None:
    """Bytes that the control groups allow; None without a limit."""
    limits = []
    for is_version_2, folder in _groups("memory"):
        name = "memory.max" if is_version_2 else "memory.limit_in_bytes"
        limits.append(_number(_text(folder / name)))
    found = [int(limit) for limit in limits if limit is not None]
    total = _memory("MemTotal")
    # Version 1 states a number beyond all memory where there is no limit.
    found = [limit for limit in found if total is None or limit < total]
    return min(found, default=None)


def _memory(name: str, path: str = "proc/meminfo") -> int | None:
    """The bytes in a line of a file of the kernel."""
    for line in _text(path).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def memory_total() -> int | None:
    """Bytes that this process may use: those of the machine, or of its container."""
    sizes = (memory_limit(), _memory("MemTotal"))
    return min((size for size in sizes if size is not None), default=None)


def memory_free() -> int | None:
    """Bytes of the machine that are free, or hold caches that can be dropped."""
    return _memory("MemAvailable")


def own_memory() -> int:
    """Bytes of memory that this process has; 0 if that is unknown."""
    return _memory("VmRSS", "proc/self/status") or 0


def available_cores(num_processes: int = 1) -> int:
    """How many threads one of several processes like this one can keep busy.

    Args:
      num_processes: Those that were launched on this machine, or in this container,
        bound to cores by the launcher or not.

    Returns:
      At least 1. A part of a core is not counted: one thread more would be stopped in
      the middle of its work by the limit, with the others waiting for it.
    """
    cores = len(os.sched_getaffinity(0))
    if num_processes > 1:
        # The launcher itself may use what this host, or this container, has for all.
        launchers = max(cores, len(os.sched_getaffinity(os.getppid())))
        bindings = launchers // cores
        cores //= -(-num_processes // bindings)
    limit = cpu_limit()
    if limit is not None:
        cores = min(cores, int(limit / num_processes))
    return max(1, cores)


def describe_cores() -> str:
    """What limits the number of cores, for the log: "bound to 2 of 64 cores"."""
    count, everywhere = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    limit = cpu_limit()
    if limit is not None and limit < count:
        return f"container limit {limit:.3g} of {counted(count, 'core')}"
    if count < everywhere:
        return f"bound to {count} of {counted(everywhere, 'core')}"
    return counted(count, "core")


def process_seconds() -> float:
    """Since this process was started; where that is unknown, since it loaded this."""
    since_loaded = time.monotonic() - _LOADED
    try:
        # After the name in brackets; field 22 of proc(5), in ticks since the boot.
        ticks = int(_text("proc/self/stat").rpartition(")")[2].split()[19])
        started = ticks / os.sysconf("SC_CLK_TCK")
        return max(since_loaded, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (IndexError, ValueError, OSError, AttributeError):
        return since_loaded
