"""Commands of README.md, and of installing, pretraining, finetuning and planning.md.

Data, weights and numbers of steps are small; names, flags and order are the pages'.
"""

import importlib
import json
import shutil

import pytest
from integration import finetuning_data
from integration.launching import ROOT
from pages import fences

from bert_tf import cli
from bert_tf.config import BertConfig
from bert_tf.interop.pretrained import save_pretrained
from bert_tf.modeling.pretraining import build_pretraining_model

pytestmark = pytest.mark.slow
SUMMARIES = ".data/text/wikipedia/summaries_en-us.json"
ARTICLES = 60  # Of them, about a tenth are test documents.
SMALL = dict(
    vocab_size=30522,
    hidden_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=512,
)
PAGES = (
    *("README.md", "docs/installing.md", "docs/pretraining.md"),
    *("docs/reports.md", "docs/finetuning.md", "docs/planning.md"),
)
# The last of equal flags counts.
FEWER_STEPS = {"run_pretraining": ["--steps_this_run=2", "--max_eval_steps=2"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make setup`, `make demo` and downloads leave, but small."""
    path = tmp_path_factory.mktemp("pages")
    (path / SUMMARIES).parent.mkdir(parents=True)
    articles = list(json.loads((ROOT / SUMMARIES).read_text()).items())[:ARTICLES]
    (path / SUMMARIES).write_text(json.dumps(dict(articles)))
    shutil.copy(ROOT / ".data/vocab.txt", path / ".data")
    model = build_pretraining_model(BertConfig(**SMALL), max_seq_length=128)
    for name in (".data/models/minilm", "results/demo"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        save_pretrained(model, path / name, vocab_file=str(ROOT / ".data/vocab.txt"))
    boolq = path / ".data/tasks/boolq"
    boolq.mkdir(parents=True)
    for name in ("train.jsonl", "dev.jsonl"):
        lines = (ROOT / ".data/tasks/boolq" / name).read_text().splitlines()
        (boolq / name).write_text("\n".join(lines[:16]) + "\n")
    (path / "results/squad-1.1").mkdir()
    for name in ("train", "dev"):
        finetuning_data.write_squad(path / f"results/squad-1.1/{name}-v1.1.json")
    write_mrpc(path / "results/MRPC")
    return path


def write_mrpc(folder):
    """GLUE's columns of MRPC."""
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    rows = [(int(s > 2), 1, 2, a, b) for a, b, s in finetuning_data.PAIRS]
    for split in ("train", "dev"):
        finetuning_data.write_table(folder / f"{split}.tsv", [header, *rows])
    tests = [("index", *header[1:]), *((n, *r[1:]) for n, r in enumerate(rows))]
    finetuning_data.write_table(folder / "test.tsv", tests)


def run(words):
    """Runs a command in this process; returns its exit code."""
    if words[0] == "echo":  # echo TEXT > FILE
        with open(words[3], "w") as file:
            file.write(words[1] + "\n")
        return 0
    if words[0] == "bert-tf" or words[1] == "-m":
        return cli.main(words[1:] if words[0] == "bert-tf" else words[3:])
    script = words[1].removesuffix(".py")
    arguments = [*words[1:], *FEWER_STEPS.get(script, ())]
    return importlib.import_module(script).main(arguments)


def test_commands_of_the_pages_run(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    count = 0
    for fence in fences(*PAGES):
        for words in fence.commands if not fence.needs else ():
            assert run(words) == 0, (words, capfd.readouterr().err[-2000:])
            count += 1
    assert count >= 15
    assert json.loads((folder / "results/squad/predictions.json").read_text())
