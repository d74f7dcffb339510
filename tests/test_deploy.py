"""The files in deploy/: their form, and the flags, files and targets that they name."""

import os
import re
import shlex
import subprocess

import pytest
import yaml
from conftest import ROOT

from bert_tf import flags
from bert_tf.cli import launch
from bert_tf.config import PretrainingConfig

FOLDER = ROOT / "deploy"
DOCUMENTS = {
    document["kind"]: document
    for path in sorted(FOLDER.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
}
# From the API's documentation: each kind's version, and fields that it must have here.
KINDS = {
    "Job": ("batch/v1", ["template", "backoffLimit"]),
    "TrainingRuntime": ("trainer.kubeflow.org/v1alpha1", ["mlPolicy", "template"]),
    "TrainJob": ("trainer.kubeflow.org/v1alpha1", ["runtimeRef", "trainer"]),
    "MPIJob": ("kubeflow.org/v2beta1", ["mpiReplicaSpecs", "slotsPerWorker"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_has_the_fields_of_its_kind(kind):
    document, (version, fields) = DOCUMENTS[kind], KINDS[kind]
    assert document["apiVersion"] == version
    assert re.fullmatch("[a-z0-9-]+", document["metadata"]["name"])
    assert {*fields} <= document["spec"].keys()


def test_no_resource_is_of_another_kind():
    assert DOCUMENTS.keys() == KINDS.keys()


def pods(node):
    """The specifications of pods in a document."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


@pytest.mark.parametrize("kind", ["Job", "TrainingRuntime", "MPIJob"])
def test_pods_have_images_and_mount_volumes_that_exist(kind):
    found = [*pods(DOCUMENTS[kind])]
    assert found
    for pod in found:
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert container["name"] and container["image"]
            mounts = container.get("volumeMounts", ())
            assert {mount["name"] for mount in mounts} <= volumes


def test_the_runtime_has_the_jobs_that_the_plug_in_looks_for():
    """Its MPI plug-in knows jobs and containers by name."""
    spec, job = DOCUMENTS["TrainingRuntime"]["spec"], DOCUMENTS["TrainJob"]["spec"]
    node, launcher = spec["template"]["spec"]["replicatedJobs"]
    assert (node["name"], launcher["name"]) == ("node", "launcher")
    for pod in pods(spec):
        assert [container["name"] for container in pod["containers"]] == ["node"]
    assert spec["mlPolicy"]["mpi"]["mpiImplementation"] == "OpenMPI"
    label = "trainer.kubeflow.org/trainjob-ancestor-step"
    assert launcher["template"]["metadata"]["labels"] == {label: "trainer"}
    reference = job["runtimeRef"]
    runtime = DOCUMENTS["TrainingRuntime"]
    assert reference["name"] == runtime["metadata"]["name"]
    assert reference["kind"] == runtime["kind"]
    assert runtime["apiVersion"].startswith(reference["apiGroup"])


def test_the_mpijob_has_a_launcher_and_workers_with_sshd():
    roles = DOCUMENTS["MPIJob"]["spec"]["mpiReplicaSpecs"]
    assert roles.keys() == {"Launcher", "Worker"}
    [worker] = pods(roles["Worker"])
    assert worker["containers"][0]["command"] == ["/usr/sbin/sshd"]


def commands():
    """Name -> the words of each command that trains."""
    found = {}
    for kind, document in DOCUMENTS.items():
        containers = [c for pod in pods(document) for c in pod["containers"]]
        if kind == "TrainJob":
            containers.append(document["spec"]["trainer"])
        for container in containers:
            words = [*container.get("command", ()), *container.get("args", ())]
            if "run_pretraining.py" in words:
                found[kind] = words
    text = (FOLDER / "slurm.sh").read_text().replace("\\\n", " ")
    [line] = [
        line
        for line in text.splitlines()
        if "run_pretraining.py" in line[1:] and not line.startswith("#")
    ]
    example = ["--input_files_dir=/data", "--preset=base"]
    words = [word for word in shlex.split(line) if word not in ("&", "$@")]
    found["slurm"] = [*words, *example]
    return found


COMMANDS = commands()


class Ended:
    """A command that has ended."""

    def run(self, restarts):
        return 0


def test_every_file_has_a_command():
    assert COMMANDS.keys() == {"Job", "TrainJob", "MPIJob", "slurm"}


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_exist_and_fit_together(name):
    words = COMMANDS[name]
    arguments = words[words.index("run_pretraining.py") :]
    config = flags.parse(PretrainingConfig, arguments)
    assert config.runtime.horovod and config.training.do_train
    assert config.files.output_dir and config.files.input_files_dir


@pytest.mark.parametrize("name", COMMANDS)
def test_mpirun_is_started_by_the_launcher(name, monkeypatch):
    """Whose options exist."""
    started = []
    monkeypatch.setattr(launch, "Launcher", lambda x: started.append(x) or Ended())
    words = COMMANDS[name]
    assert launch.main(words[words.index("launch") + 1 :]) == 0
    assert started[0][0].rpartition("/")[2] == "mpirun"


def test_open_mpi_5_gets_the_hostfile_that_operators_name_for_4(monkeypatch, capfd):
    """It reads no variable of the old names, and starts all workers on one host."""
    monkeypatch.setattr(launch, "Launcher", lambda command: Ended())
    for name in ("prte_default_hostfile", "plm_ssh_args"):
        monkeypatch.setenv(f"PRTE_MCA_{name}", "before")
    monkeypatch.delenv("PRTE_MCA_prte_default_hostfile")
    monkeypatch.setenv("OMPI_MCA_orte_default_hostfile", "/etc/mpi/hostfile")
    monkeypatch.setenv("OMPI_MCA_plm_rsh_args", "-o ConnectionAttempts=10")
    assert launch.main(["--", "mpirun", "true"]) == 0
    assert os.environ["PRTE_MCA_prte_default_hostfile"] == "/etc/mpi/hostfile"
    assert os.environ["PRTE_MCA_plm_ssh_args"] == "before"
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("PRTE_MCA_prte_default_hostfile=/etc/mpi/hostfile is set")


@pytest.mark.parametrize("kind", ["TrainJob", "MPIJob"])
def test_the_number_of_workers_is_that_of_the_hostfile(kind):
    assert not {"-np", "-n", "--hostfile", "-H"} & {*COMMANDS[kind]}


def test_the_slurm_script_is_a_script():
    path = FOLDER / "slurm.sh"
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    options = " ".join(re.findall(r"^#SBATCH (.*)$", path.read_text(), re.MULTILINE))
    assert "--signal=B:USR1@" in options and "--requeue" in options


def test_the_slurm_script_queues_a_stopped_job_again(tmp_path):
    """With programs in the place of Slurm's and of the launcher."""
    wait = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.5; done"
    programs = {
        ".venv/bin/python": f"trap 'exit 75' USR1; sleep 0.5; echo up; {wait}",
        "bin/scontrol": 'echo "$@" > requeued',
    }
    for name, text in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    job = subprocess.Popen(
        ["bash", FOLDER / "slurm.sh"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "SLURM_JOB_ID": "42"},
        stdout=subprocess.PIPE,
    )
    assert job.stdout.readline() == b"up\n"
    job.send_signal(10)  # SIGUSR1, as Slurm sends it to this process alone.
    assert job.wait(20) == 75
    job.stdout.close()
    assert (tmp_path / "requeued").read_text() == "requeue 42\n"


def test_the_image_copies_files_that_exist_and_makes_targets_that_exist():
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    makefile = (ROOT / "Makefile").read_text()
    copied = set()
    for sources in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            copied.add(source)
    [targets] = re.findall(r"^RUN make (.*)$", text, re.MULTILINE)
    for target in targets.split():
        if "=" not in target:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert {"bert_tf", "tools", "requirements.lock", "run_pretraining.py"} <= copied
    allowed = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    for source in copied:
        names = {f"!{source}", re.sub(r"^run_.*\.py$", "!run_*.py", source)}
        assert names & {*allowed}, source
