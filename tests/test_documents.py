"""What README says is true: its commands are understood, its files are there."""

import re
import shlex

import pytest
from conftest import ROOT

from bert_tf import flags
from bert_tf.cli.arguments import parse_config
from bert_tf.config import CreateDataConfig, PretrainingConfig
from bert_tf.config.data import IndexDataConfig, PackDataConfig, SplitDataConfig

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
LINES = "\n".join(BLOCKS).replace("\\\n", " ").splitlines()
COMMANDS = [shlex.split(line, comments=True) for line in LINES if line.strip()]
TRAINING = [c for c in COMMANDS if "run_pretraining.py" in c]
DATA = [c for c in COMMANDS if "bert_tf" in c]


@pytest.mark.parametrize("command", TRAINING, ids=range(len(TRAINING)))
def test_training_commands_are_understood(command):
    arguments = command[command.index("run_pretraining.py") :]
    config = flags.parse(PretrainingConfig, arguments)
    assert config.training.do_train
    assert config.runtime.horovod == (command[0] == "mpirun")


@pytest.mark.parametrize("command", DATA, ids=range(len(DATA)))
def test_data_commands_are_understood(command):
    kinds = {
        "create": CreateDataConfig,
        "split": SplitDataConfig,
        "pack": PackDataConfig,
        "index": IndexDataConfig,
    }
    parse_config(
        kinds[command[command.index("data") + 1]],
        command[command.index("data") + 2 :],
        "data",
    )


def test_all_commands_were_found():
    assert len(TRAINING) == 4
    assert len(DATA) == 4


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = [c[c.index("make") + 1] for c in COMMANDS if "make" in c]
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_linked_files_exist():
    for name in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / name).exists(), name
