"""Every command of docs/data.md that needs no network runs, in its order."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from integration.launching import ROOT

from bert_tf.data.records.metadata import read_metadata

pytestmark = [pytest.mark.slow, pytest.mark.horovod]
TEXT = (ROOT / "docs" / "data.md").read_text()
NETWORK = ("download", "verify")


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    for line in filter(None, map(str.strip, lines)):
        words = shlex.split(line, comments=True)
        if words and words[words.index("data") + 1] not in NETWORK:
            yield words


def test_commands_run(tmp_path):
    (tmp_path / ".data").symlink_to(ROOT / ".data")
    demo = (ROOT / "demo.toml").read_text()
    (tmp_path / "demo.toml").write_text(demo.replace(".data/demo", "results/demo"))
    tools = str(Path(sys.executable).parent)
    environment = dict(
        os.environ,
        PATH=os.pathsep.join([tools, os.environ["PATH"]]),
        PYTHONPATH=str(ROOT),
        OMP_NUM_THREADS="1",
        # Of Open MPI 5 and 4: two processes anywhere, also as root.
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe",
        OMPI_MCA_rmaps_base_oversubscribe="1",
    )
    assert shutil.which("mpirun", path=environment["PATH"])
    found = list(commands())
    assert len(found) >= 15
    for words in found:
        result = subprocess.run(
            words,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, f"{shlex.join(words)}\n{result.stderr[-2000:]}"
    records = [
        read_metadata(tmp_path / "results" / "records-512" / name)
        for name in ("training", "training-2")
    ]
    assert records[0].shards == records[1].shards
    assert read_metadata(tmp_path / "results" / "packed" / "training").packed
