"""Several hosts on one machine: namespaces of Linux, joined by a bridge, with an sshd.

Each host has its own network, hostname, mounts and processes. No namespace has a name
and no device is in the network of the machine: when this process ends, however that
happens, the kernel removes all of them.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

from integration.launching import environment

PORT = 3022  # DOCKER_SSHD_PORT of the published scripts.
_TOOLS = ("ip", "tc", "unshare", "nsenter", "setpriv", "ssh", "ssh-keygen", "sshd")
_PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
_SSHD = """\
Port {port}
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv TMPDIR={folder}/tmp OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=-1
"""
_SSH = """\
#!/bin/sh
exec {ssh} -F none -i {folder}/key -o BatchMode=yes -o StrictHostKeyChecking=no \\
  -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"
"""


def missing():
    """What these hosts need and this machine lacks; empty if they can be made."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "root on Linux"
    for tool in _TOOLS:
        if not shutil.which(tool, path=_PATH):
            return tool
    tried = subprocess.run(
        "unshare -n -u -m -p -f ip link add dev x1 type veth peer name x2".split(),
        capture_output=True,
        text=True,
        env={"PATH": _PATH},
    )
    return f"namespaces with veth ({tried.stderr.strip()})" if tried.returncode else ""


class Hosts:
    """Hosts h1, h2, ... with the addresses 10.77.0.1, ...; a context."""

    def __init__(self, folder, size, mounts=()):
        """Makes nothing yet.

        Args:
          folder: For keys and settings.
          size: How many.
          mounts: Folders of which each host has its own, empty at first.
        """
        self._folder = pathlib.Path(folder)
        # Open MPI's files are named by process, and numbers are not unique here.
        self._mounts = [str(mount) for mount in (*mounts, self._folder / "tmp")]
        self._processes = contextlib.ExitStack()
        self.names = [f"h{number}" for number in range(1, size + 1)]
        self.addresses = [f"10.77.0.{number}" for number in range(1, size + 1)]
        self._pids = []

    def __enter__(self):
        with contextlib.ExitStack() as until_failure:
            until_failure.callback(self._processes.close)
            self._write_files()
            switch = self._start("unshare", "-n", "sleep", "infinity")
            self._wait_for(lambda: _net(switch) != _net(os.getpid()))
            _in(switch, "n", "ip link add bridge type bridge")
            _in(switch, "n", "ip link set bridge up")
            for number, name in enumerate(self.names):
                self._add(number, name, switch)
            until_failure.pop_all()
        return self

    def __exit__(self, *_):
        self._processes.close()

    def _write_files(self):
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"]
        subprocess.run(key, check=True)
        (folder / "sshd_config").write_text(_SSHD.format(port=PORT, folder=folder))
        lines = ["127.0.0.1 localhost"]
        lines += map(" ".join, zip(self.addresses, self.names, strict=True))
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        (folder / "bin").mkdir()
        ssh = folder / "bin" / "ssh"
        ssh.write_text(_SSH.format(ssh=shutil.which("ssh"), folder=folder))
        ssh.chmod(0o755)

    def _start(self, *command):
        """Starts a process that the kernel kills when this one ends."""
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
            env={"PATH": self.environment()["PATH"]},
        )
        self._processes.callback(process.wait)
        self._processes.callback(process.kill)
        return process.pid

    def _add(self, number, name, switch):
        """Starts a host, whose first process is its sshd, and plugs it in."""
        folder = self._folder
        lines = [
            f"hostname {name}",
            f"mount --bind {folder}/hosts /etc/hosts",
            "mount -t tmpfs run /run && mkdir -m 755 /run/sshd",  # Asked for by sshd.
            *(f"mkdir -p {m} && mount -t tmpfs {name} {m}" for m in self._mounts),
            f"touch {folder}/{name}",
            f"exec $(which sshd) -D -f {folder}/sshd_config -E {folder}/{name}.log",
        ]
        flags = "-n -u -m -p -f --mount-proc --kill-child".split()
        script = " && ".join(lines)
        parent = self._start("unshare", *flags, "sh", "-c", script)
        self._wait_for(lambda: (folder / name).exists())
        children = pathlib.Path(f"/proc/{parent}/task/{parent}/children")
        pid = int(children.read_text().split()[0])
        self._pids.append(pid)
        link = f"ip link add eth0 netns {pid} type veth peer name {name}"
        _in(switch, "n", link)
        _in(switch, "n", f"ip link set {name} master bridge up")
        _in(pid, "n", "ip link set lo up")
        _in(pid, "n", f"ip address add {self.addresses[number]}/24 dev eth0")
        _in(pid, "n", "ip link set eth0 up")

    def _wait_for(self, is_true):
        limit = time.monotonic() + 20
        while not is_true():
            assert time.monotonic() < limit, "a host has not started"
            time.sleep(0.02)

    def environment(self):
        """Variables in which `ssh` uses the key of these hosts."""
        path = f"{self._folder}/bin{os.pathsep}{environment()['PATH']}:/usr/sbin:/sbin"
        return environment() | {"PATH": path, "TMPDIR": f"{self._folder}/tmp"}

    def run(self, *command, host=0, timeout=200, env=None):
        """Runs a command on a host; returns its code, output and errors.

        Whatever is left of it when the time is over ends with the hosts.
        """
        enter = ["nsenter", "-t", str(self._pids[host]), "-n", "-u", "-m", "-p"]
        here = pathlib.Path(__file__).parents[2]
        limited = ["timeout", "--kill-after=5", str(timeout), "env", "-C", here]
        return subprocess.run(
            [*enter, *map(str, [*limited, *command])],
            env=self.environment() | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout + 30,
        )

    def path(self, path, host=0):
        """A path of a host as this process sees it."""
        return pathlib.Path(f"/proc/{self._pids[host]}/root{path}")

    @contextlib.contextmanager
    def limited_rate(self, rate):
        """Limits what each host sends, in units of tc such as 100mbit."""
        for pid in self._pids:
            rule = f"tbf rate {rate} burst 64kb latency 50ms"
            _in(pid, "n", f"tc qdisc add dev eth0 root {rule}")
        yield
        for pid in self._pids:
            _in(pid, "n", "tc qdisc del dev eth0 root")


def _net(pid):
    return os.readlink(f"/proc/{pid}/ns/net")


def _in(pid, kinds, command):
    flags = [f"-{kind}" for kind in kinds]
    subprocess.run(
        ["nsenter", "-t", str(pid), *flags, *command.split()],
        check=True,
        env={"PATH": _PATH},
    )
