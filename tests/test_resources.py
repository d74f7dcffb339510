"""What a process may use, from files as Linux writes them in a folder of their own."""

import os
import time

import pytest

from bert_tf import resources

GB = 2**30
V2_MOUNT = "31 24 0:27 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes files; the affinity of this process and its launcher is 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(resources, "ROOT", tmp_path)

    def make(cgroup, mountinfo, files, meminfo="MemTotal: 67108864 kB\n"):
        contents = {
            "proc/self/cgroup": cgroup,
            "proc/self/mountinfo": mountinfo,
            "proc/meminfo": meminfo,
            **files,
        }
        for name, text in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return make


def version_2(machine, own="/", mountinfo=V2_MOUNT, **files):
    """Files of version 2; `files` by path below the mount with / as __."""
    paths = {}
    for name, text in files.items():
        *folder, file = name.split("__")
        path = "/".join([*folder, file.replace("_", ".")])
        paths[f"sys/fs/cgroup/{path}"] = text
    machine(f"0::{own}\n", mountinfo, paths)


def test_without_control_groups_there_is_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "ROOT", tmp_path)
    assert resources.cpu_limit() is None
    assert resources.memory_limit() is None
    assert resources.memory_total() is None


def test_docker_run_cpus_2(machine):
    version_2(machine, cpu_max="200000 100000\n")
    assert resources.cpu_limit() == 2.0
    assert resources.available_cores() == 2
    assert resources.describe_cores() == "container limit 2 of 64 cores"


def test_max_is_no_limit(machine):
    version_2(machine, cpu_max="max 100000\n", memory_max="max\n")
    assert resources.cpu_limit() is None
    assert resources.memory_limit() is None
    assert resources.available_cores() == 64
    assert resources.describe_cores() == "64 cores"


@pytest.mark.parametrize(
    "quota, cores",
    [
        ("50000 100000", 1),
        ("150000 100000", 1),
        ("250000 100000", 2),
        ("1000 100000", 1),
    ],
)
def test_a_part_of_a_core_is_not_a_thread(machine, quota, cores):
    version_2(machine, cpu_max=quota)
    assert resources.available_cores() == cores


def test_workers_in_one_container_share_its_limit(machine):
    version_2(machine, cpu_max="800000 100000\n")
    shares = [resources.available_cores(count) for count in (1, 2, 3, 8, 16)]
    assert shares == [8, 4, 2, 1, 1]


def test_workers_without_a_limit_share_the_cores(machine):
    version_2(machine, cpu_max="max 100000\n")
    assert resources.available_cores(4) == 16


def test_workers_bound_to_cores_keep_theirs(machine, monkeypatch):
    version_2(machine, cpu_max="max 100000\n")
    parent = os.getppid()
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: set(range(64 if pid == parent else 8))
    )
    assert resources.available_cores(8) == 8
    assert resources.available_cores(16) == 4


def test_the_smallest_limit_above_a_process_counts(machine):
    version_2(
        machine,
        own="/kubepods.slice/pod1/c1",
        **{
            "kubepods.slice__cpu_max": "1600000 100000\n",
            "kubepods.slice__pod1__cpu_max": "300000 100000\n",
            "kubepods.slice__pod1__c1__cpu_max": "max 100000\n",
            "kubepods.slice__memory_max": f"{64 * GB - 4096}\n",
            "kubepods.slice__pod1__memory_max": f"{4 * GB}\n",
            "kubepods.slice__pod1__c1__memory_max": "max\n",
        },
    )
    assert resources.cpu_limit() == 3.0
    assert resources.memory_limit() == 4 * GB


def test_a_container_that_sees_the_names_of_the_host(machine):
    """Its own group is mounted at the top, under the host's name."""
    mount = "31 24 0:27 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate\n"
    version_2(machine, "/docker/abc/inner", mount, cpu_max="400000 100000")
    assert resources.cpu_limit() == 4.0


@pytest.mark.parametrize("own", ["/../other", "/elsewhere"])
def test_a_group_outside_of_the_mount_has_the_limit_of_the_mounted_one(machine, own):
    mount = "31 24 0:27 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    version_2(machine, own, mount, cpu_max="400000 100000")
    assert resources.cpu_limit() == 4.0


V1_MOUNTS = (
    "35 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "36 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def test_version_1(machine):
    files = {
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    machine("5:cpu,cpuacct:/job\n6:memory:/job\n", V1_MOUNTS, files)
    assert resources.cpu_limit() == 3.0
    assert resources.memory_limit() == 2 * GB


def test_version_1_without_a_limit(machine):
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    machine("5:cpu,cpuacct:/\n6:memory:/\n", V1_MOUNTS, files)
    assert resources.cpu_limit() is None
    assert resources.memory_limit() is None
    assert resources.memory_total() == 64 * GB


def test_both_versions_together(machine):
    """As systemd's hybrid hierarchy has them: limits in the first alone."""
    files = {
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/unified/job/cgroup.controllers": "\n",
    }
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    own = "5:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job\n"
    machine(own, V1_MOUNTS + unified, files)
    assert resources.cpu_limit() == 1.0


def test_folders_with_spaces_and_colons_in_their_names(machine):
    mount = "31 24 0:27 / /sys/fs/c\\040group rw - cgroup2 cgroup2 rw\n"
    files = {"sys/fs/c group/a:b/cpu.max": "200000 100000\n"}
    machine("0::/a:b\n", mount, files)
    assert resources.cpu_limit() == 2.0


def test_memory_is_the_machines_or_the_containers(machine):
    version_2(machine, memory_max="max")
    assert resources.memory_total() == 64 * GB
    version_2(machine, memory_max=str(GB))
    assert resources.memory_total() == GB


def test_an_affinity_below_the_limit_counts(machine, monkeypatch):
    version_2(machine, cpu_max="800000 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert resources.available_cores() == 1
    assert resources.describe_cores() == "bound to 1 of 64 cores"


def test_the_time_of_a_process_is_that_since_its_start():
    psutil = pytest.importorskip("psutil")
    seconds = time.time() - psutil.Process().create_time()
    assert resources.process_seconds() == pytest.approx(seconds, abs=2.0)


def test_without_files_of_the_kernel_time_counts_from_loading(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "ROOT", tmp_path)
    monkeypatch.setattr(resources, "_LOADED", time.monotonic() - 5.0)
    assert resources.process_seconds() == pytest.approx(5.0, abs=2.0)
