"""README and docs are true: commands can be parsed, files and links exist."""

import re
import shlex
import tomllib

import pytest
from conftest import ROOT

from bert_tf import flags
from bert_tf.cli import predict
from bert_tf.cli.arguments import parse_config
from bert_tf.cli.pipeline import plan
from bert_tf.config import CreateDataConfig, PretrainingConfig
from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig
from bert_tf.config.data import IndexDataConfig, PackDataConfig, ShowDataConfig
from bert_tf.config.download import DownloadConfig, VerifyConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.text import ExtractConfig, SentencesConfig, ShardConfig, VocabConfig

FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text() for path in FILES}
BLOCKS = [
    block
    for text in TEXTS.values()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
]
LINES = "\n".join(BLOCKS).replace("\\\n", " ").splitlines()
COMMANDS = [shlex.split(line, comments=True) for line in LINES if line.strip()]
TRAINING = [c for c in COMMANDS if "run_pretraining.py" in c]
DATA = [c for c in COMMANDS if "bert_tf" in c and "data" in c]
PREDICTION = [c for c in COMMANDS if "predict" in c]
SCRIPTS = {"run_squad.py": SquadConfig, "run_classifier.py": ClassifierConfig}
FINETUNING = [c for c in COMMANDS if SCRIPTS.keys() & set(c)]
CONFIGS = {
    "chop": ChopDataConfig,
    "convert": ConvertDataConfig,
    "download": DownloadConfig,
    "pick_eval": PickEvalConfig,
    "verify": VerifyConfig,
    "create": CreateDataConfig,
    "extract": ExtractConfig,
    "index": IndexDataConfig,
    "pack": PackDataConfig,
    "sentences": SentencesConfig,
    "shard": ShardConfig,
    "show": ShowDataConfig,
    "vocab": VocabConfig,
}


@pytest.mark.parametrize("command", TRAINING, ids=range(len(TRAINING)))
def test_training_commands_are_understood(command):
    arguments = command[command.index("run_pretraining.py") :]
    config = flags.parse(PretrainingConfig, arguments)
    assert config.training.do_train
    assert config.runtime.horovod == (command[0] == "mpirun")


@pytest.mark.parametrize("command", FINETUNING, ids=range(len(FINETUNING)))
def test_finetuning_commands_are_understood(command):
    [script] = SCRIPTS.keys() & set(command)
    config = flags.parse(SCRIPTS[script], command[command.index(script) :])
    assert config.training.do_train


@pytest.mark.parametrize("command", PREDICTION, ids=range(len(PREDICTION)))
def test_prediction_commands_are_understood(command):
    words = command[command.index("predict") + 1 :]
    assert predict.make_parser().parse_intermixed_args(words).model


@pytest.mark.parametrize("command", DATA, ids=range(len(DATA)))
def test_data_commands_are_understood(command):
    name, *options = command[command.index("data") + 1 :]
    if name == "all":
        path = options[options.index("--config") + 1]
        commands = list(plan(tomllib.loads((ROOT / path).read_text()), path))
        assert len(commands) > 3
    else:
        commands = [(name, options)]
    for name, words in commands:
        if isinstance(words, dict):
            words = [f"--{key}={value}" for key, value in words.items()]
        parse_config(CONFIGS[name], words, "data")


def test_all_commands_were_found():
    assert len(TRAINING) == 7
    assert len(DATA) > 10
    assert len(FINETUNING) > 3
    assert len(PREDICTION) > 3


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = [c[c.index("make") + 1] for c in COMMANDS if "make" in c]
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def anchors(path):
    """Those that a page gets from its headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_links_lead_to_files_and_headings():
    for path, text in TEXTS.items():
        for name, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", text):
            target = path.parent / name if name else path
            assert target.exists(), f"{path.name}: {name}"
            if heading:
                assert heading in anchors(target), f"{path.name}: {name}#{heading}"
