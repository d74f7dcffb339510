"""What must agree between ranks, and between a run and its resumption: a table.

Each case starts from the same run and changes one thing. It must be refused with what
was before and what is now, or be a line in the log.
"""

import contextlib
import json
import os
import shutil
import sys

import numpy as np
import pytest
from conftest import TINY, make_example, write_records
from faults.counts import count
from integration import finetuning_data
from integration.launching import ROOT, mpirun_apart
from runs import JOBS, parse, pretraining_flags, run

from bert_tf import fused_ops
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.jobs import finetuning, pretraining
from bert_tf.jobs.run import session as run_session
from bert_tf.jobs.run.agreement import difference, settings
from bert_tf.jobs.run.session import open_session, plan_facts

pytestmark = pytest.mark.slow
LISTS = {"allowlist": ["MatMul", "BatchMatMulV2"]}
REFUSED, LOGGED, THE_SAME = "refused", "logged", "the same"


def rewrite(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_words(path, words):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("\n".join([*special, *words]) + "\n")


def records(folder, seed, counts=(60, 50, 40)):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number, size in enumerate(counts):
        examples = [make_example(rng) for _ in range(size)]
        write_records(folder / f"part-{number}.tfrecord", examples)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pre-training, a classification and a SQuAD of two steps, and their data."""
    folder = tmp_path_factory.mktemp("agreement")
    rewrite(folder / "config.json", TINY)
    rewrite(folder / "lists.json", LISTS)
    write_words(folder / "vocab.txt", [f"w{n}" for n in range(25)])
    records(folder / "train", 1)
    records(folder / "eval", 2, (20,))
    finetuning_data.write_model(folder / "model")
    finetuning_data.write_classes(folder / "classes")
    finetuning_data.write_squad(folder / "questions.json")
    stop = ("--steps_this_run=2",)
    for job in ("pretraining", "classifier", "squad"):
        run(job, *command(job, folder), *stop)
    run(
        "pretraining",
        *command("pretraining", folder),
        "--seed=9",
        *stop,
        *other(folder),
    )
    return folder


def other(folder):
    """Flags for a second run, whose weights others may start from."""
    return [f"--output_dir={folder}/other"]


def command(job, folder):
    model = [f"--{name}={folder}/model/{file}" for name, file in MODEL_FILES.items()]
    output = [f"--output_dir={folder}/{job}", "--do_train", "--do_eval"]
    if job == "pretraining":
        return [
            *pretraining_flags(
                folder / "config.json", folder / "train", folder / job, "--do_eval"
            ),
            f"--eval_files_dir={folder}/eval",
            f"--vocab_file={folder}/vocab.txt",
            f"--bf16_config_path={folder}/lists.json",
            "--do_lower_case",
        ]
    if job == "classifier":
        data = [f"--data_dir={folder}/classes", "--task_name=tsv"]
        return [*output, *model, *data, *finetuning_data.CLASS_FLAGS]
    names = ("train", "predict")
    data = [f"--{name}_file={folder}/questions.json" for name in names]
    return [*output, *model, *data, *finetuning_data.SQUAD_FLAGS]


MODEL_FILES = {"bert_config_file": "bert_config.json", "vocab_file": "vocab.txt"}


def architecture(**changes):
    return lambda folder: rewrite(folder / "config.json", TINY | changes)


def replace(name, old, new):
    """Replaces a part of a text file."""

    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def train_again(seed, counts=(60, 50, 40)):
    def change(folder):
        shutil.rmtree(folder / "train")
        records(folder / "train", seed, counts)

    return change


def one_record(folder):
    """Writes the first file again with one other record, of the same size."""
    rng = np.random.default_rng(1)
    examples = [make_example(rng) for _ in range(60)]
    examples[30]["next_sentence_labels"] = [1 - examples[30]["next_sentence_labels"][0]]
    write_records(folder / "train" / "part-0.tfrecord", examples)


def swap_files(folder):
    train = folder / "train"
    (train / "part-0.tfrecord").rename(train / "part-9.tfrecord")


def moved(folder):
    (folder / "train").rename(folder / "elsewhere")


def words(*changed):
    def change(folder):
        write_words(folder / "vocab.txt", [*changed, *(f"w{n}" for n in range(2, 25))])

    return change


def flags(*passed):
    return lambda folder: [each.format(folder=folder) for each in passed]


def variable(name, value, *passed):
    """A variable, and flags."""

    def change(folder):
        os.environ[name] = value
        return [each.format(folder=folder) for each in passed]

    return change


P, C, S = "pretraining", "classifier", "squad"
# Job, what changes, how, what happens, and what the message or the log says.
RESUMED = [
    (P, "other records, as many", train_again(5), REFUSED, "training data: sha256 "),
    (P, "fewer records", train_again(1, (60, 50)), REFUSED, "records 150 -> 110"),
    (P, "more records", train_again(1, (60, 50, 41)), REFUSED, "records 150 -> 151"),
    (P, "one other record", one_record, REFUSED, "training data: sha256 "),
    (P, "files in another order", swap_files, REFUSED, "part-9.tfrecord"),
    (P, "a word", words("w0", "x"), REFUSED, "line 7: 'x' instead of 'w1'"),
    (
        P,
        "two words swapped",
        words("w1", "w0"),
        REFUSED,
        "line 6: 'w1' instead",
    ),
    (P, "case", flags("--nodo_lower_case"), REFUSED, "do_lower_case true -> false"),
    (P, "heads", architecture(num_attention_heads=4), REFUSED, "num_attention_heads=4"),
    (P, "activation", architecture(hidden_act="relu"), REFUSED, "hidden_act=relu"),
    (P, "epsilon", architecture(layer_norm_eps=1e-6), REFUSED, "layer_norm_eps=1e-06"),
    (P, "layers", architecture(num_hidden_layers=3), REFUSED, "num_hidden_layers=3"),
    (P, "width", architecture(hidden_size=16), REFUSED, "hidden_size=16"),
    (P, "inner", architecture(intermediate_size=32), REFUSED, "intermediate_size=32"),
    (P, "positions", architecture(max_position_embeddings=32), REFUSED, "ings=32"),
    (P, "rows of words", architecture(vocab_size=32), REFUSED, "vocab_size=32"),
    (P, "segments", architecture(type_vocab_size=3), REFUSED, "type_vocab_size=3"),
    (
        *(P, "mean of the loss", flags("--loss_normalization=micro_batch"), REFUSED),
        "loss_normalization global -> micro_batch",
    ),
    (
        *(P, "clipping", flags("--clip_each_micro_batch"), REFUSED),
        "clip_each_micro_batch false -> true",
    ),
    (
        *(P, "fp32", flags("--bf16_config_path=", "--precision=fp32"), REFUSED),
        "precision: name bf16 -> fp32",
    ),
    (
        *(P, "fp16", flags("--bf16_config_path=", "--amp"), REFUSED),
        "precision: name bf16 -> fp16",
    ),
    (
        *(P, "no lists", flags("--bf16_config_path=", "--precision=bf16"), REFUSED),
        "-> none",
    ),
    (P, "other lists", replace("lists.json", "MatMul", "Conv2D"), REFUSED, "Conv2D"),
    (
        P,
        "a variable",
        variable("TF_BF16_CONVERSION", "0", "--bf16_config_path="),
        REFUSED,
        "precision: name bf16 -> fp32",
    ),
    (
        P,
        "another task",
        flags("--output_dir={folder}/squad"),
        REFUSED,
        "of SQuAD",
    ),
    (P, "data in another folder", moved, THE_SAME, ""),
    (
        *(P, "dropout", architecture(hidden_dropout_prob=0.2), LOGGED),
        "hidden_dropout_prob 0.1 -> 0.2",
    ),
    (
        *(P, "dropout of attention", architecture(attention_probs_dropout_prob=0.2)),
        *(LOGGED, "attention_probs_dropout_prob 0.1 -> 0.2"),
    ),
    (
        *(P, "range", architecture(initializer_range=0.1), LOGGED),
        "initializer_range 0.02 -> 0.1",
    ),
    (P, "optimizer", flags("--optimizer_type=adam"), LOGGED, "type lamb -> adam"),
    (P, "beta", flags("--beta_2=0.99"), LOGGED, "beta_2 0.999 -> 0.99"),
    (P, "epsilon of Adam", flags("--epsilon=1e-8"), LOGGED, "epsilon 1e-06 -> 1e-08"),
    (P, "decay", flags("--weight_decay_rate=0"), LOGGED, "weight_decay_rate 0.01 -> 0"),
    (
        *(P, "without decay", flags("--exclude_from_weight_decay=bias"), LOGGED),
        "exclude_from_weight_decay ['LayerNorm', 'layer_norm', 'bias'] -> ['bias']",
    ),
    (P, "norm", flags("--max_grad_norm=2"), LOGGED, "max_grad_norm 1.0 -> 2.0"),
    (P, "steps", flags("--num_train_steps=20"), LOGGED, "num_train_steps 8 -> 20"),
    (P, "warm-up", flags("--num_warmup_steps=3"), LOGGED, "warmup_steps None -> 3"),
    (P, "power", flags("--poly_power=1"), LOGGED, "poly_power None -> 1.0"),
    (
        P,
        "learning rate",
        flags("--learning_rate=0.5"),
        LOGGED,
        "0.01 (flags: 0.5)",
    ),
    (P, "seed", flags("--seed=7"), LOGGED, "seed 42 (flags: 7)"),
    (P, "batch", flags("--train_batch_size=8"), LOGGED, "batch 16 (flags: 32)"),
    (
        P,
        "parts of a batch",
        flags("--train_batch_size=8", "--num_accumulation_steps=2"),
        LOGGED,
        "micro_batch_size 4 -> 8, num_micro_batches 4 -> 2",
    ),
    (
        P,
        "order",
        flags("--deterministic_run"),
        LOGGED,
        "run False -> True",
    ),
    (P, "XLA", flags("--use_xla"), LOGGED, "use_xla False -> True"),
    (P, "recompute", flags("--recompute"), LOGGED, "recompute False -> True"),
    (P, "padding", flags("--nounpad"), LOGGED, "unpad True -> False"),
    (P, "threads", flags("--num_threads=1"), LOGGED, "num_threads None -> 1"),
    (
        *(P, "evaluation", flags("--eval_files_dir={folder}/train"), LOGGED),
        "evaluation data: records 20 -> 150",
    ),
    (
        *(P, "allowed data", train_again(5), LOGGED),
        "--allow_config_change=data: training data: sha256 ",
    ),
    (
        C,
        "a text",
        replace("classes/train.tsv", "soup", "stew"),
        REFUSED,
        "data: sha256",
    ),
    (
        *(C, "a label", replace("classes/train.tsv", "\tfood", "\ttravel"), REFUSED),
        "training data: sha256",
    ),
    (
        C,
        "longer rows",
        flags("--max_seq_length=40"),
        REFUSED,
        "length 32 -> 40",
    ),
    (
        *(C, "another task", flags("--output_dir={folder}/pretraining"), REFUSED),
        "those of pre-training, for classification (tsv)",
    ),
    (
        *(C, "the case", flags("--nodo_lower_case"), REFUSED),
        "do_lower_case true -> false",
    ),
    (
        *(C, "dev texts", replace("classes/dev.tsv", "soup", "stew"), LOGGED),
        "evaluation data: sha256 ",
    ),
    (C, "packing", flags("--pack_sequences"), LOGGED, "pack_sequences False -> True"),
    (
        *(C, "dropout", flags("--dropout_before_logits=0.3"), LOGGED),
        "dropout_before_logits 0.1 -> 0.3",
    ),
    (C, "the precision", flags("--precision=bf16"), REFUSED, "name fp32 -> bf16"),
    (
        S,
        "an answer",
        replace("questions.json", "in 1871", "in 1872"),
        REFUSED,
        "sha256",
    ),
    (S, "the stride", flags("--doc_stride=12"), REFUSED, "doc_stride 16 -> 12"),
    (S, "the questions", flags("--max_query_length=12"), REFUSED, "length 16 -> 12"),
    (S, "the rows", flags("--max_seq_length=40"), REFUSED, "max_seq_length 48 -> 40"),
    (
        *(S, "the version", flags("--version_2_with_negative"), REFUSED),
        "those of SQuAD (1.1), for SQuAD (2.0)",
    ),
]


@contextlib.contextmanager
def changed(base, tmp_path, change):
    """The folder of the base with one change; yields it, and more flags."""
    folder = tmp_path / "copy"
    shutil.copytree(base, folder)
    before = dict(os.environ)
    try:
        yield folder, change(folder) or []
    finally:
        os.environ.clear()
        os.environ.update(before)
        fused_ops.limit("")
        shutil.rmtree(folder)


def start(job, arguments):
    """Starts a run, up to its first step; returns its plan."""
    config = parse(job, *arguments)
    module = JOBS[job][1]
    with open_session(config) as session:
        plan = session.make_plan(config, module.prepare)
        if job == "pretraining":
            pretraining.describe(plan, session)
        else:
            finetuning.describe(plan, session)
            finetuning.check_task(plan, session)
        return plan


def contents(folder):
    """Name -> content of the files of the runs."""
    paths = [p for job in JOBS for p in (folder / job).rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_what_a_resumed_run_changes_is_refused_or_logged(base, tmp_path, figure, capfd):
    cases = RESUMED if count(0, 1) else RESUMED[::3]
    silent = []
    for job, name, change, expected, text in cases:
        with changed(base, tmp_path, change) as (folder, more):
            before = contents(folder)
            if name == "data in another folder":
                more = [f"--input_files_dir={folder}/elsewhere"]
            if name == "allowed data":
                more = ["--allow_config_change=data"]
            capfd.readouterr()
            try:
                start(job, [*command(job, folder), *more])
                happened, found = LOGGED, capfd.readouterr().out
                if "New from" not in found and expected == THE_SAME:
                    happened = THE_SAME
            except RunError as error:
                happened, found = REFUSED, str(error)
                after = contents(folder)
                assert after == before, (name, after.keys() ^ before.keys())
            if happened != expected or text not in found:
                silent.append((job, name, happened, found[-1500:]))
    kept = len(cases) - len(silent)
    print(*silent, sep="\n\n")
    figure("changed on resume: refused with both values, or logged", kept, len(cases))


class OneOfTwo(Communicator):
    """The first of two workers, whose other one is the same."""

    size = local_size = 2

    def sum(self, tensors, name):
        return [2 * tensor for tensor in tensors]

    def gather(self, values):
        return np.asarray([values, values], np.float64)

    def gather_values(self, value):
        return [value, value]


def initial(name):
    """Weights of another run to start from."""
    return flags(f"--init_checkpoint={{folder}}/{name}", "--output_dir={folder}/new")


# Job, what one worker has that the other has not, and what the message says of it.
NEW = "--output_dir={folder}/new"
RANKS = [
    (P, flags(NEW, "--weight_decay_rate=0.5"), "--weight_decay_rate: 0.01"),
    (P, flags(NEW, "--loss_normalization=micro_batch"), "loss_normalization of the"),
    (P, flags(NEW, "--num_train_steps=9"), "training steps: 8"),
    (P, flags(NEW, "--seed=3"), "seed: 42"),
    (P, flags(NEW, "--recompute"), "--recompute: False"),
    (P, flags(NEW, "--init_loss_scale=1024"), "--init_loss_scale: 65536.0"),
    (P, flags(NEW, "--nodo_lower_case"), "do_lower_case of the vocabulary: true"),
    (
        P,
        flags(NEW, "--eval_files_dir={folder}/train"),
        "records of the evaluation",
    ),
    (
        *(P, variable("TF_ENABLE_ONEDNN_OPTS", "0", NEW)),
        "the variable TF_ENABLE_ONEDNN_OPTS: none",
    ),
    (P, variable("XLA_FLAGS", "--xla_dump_to=", NEW), "the variable XLA_FLAGS: none"),
    (P, lambda f: train_again(5)(f) or flags(NEW)(f), "sha256 of the training data"),
    (P, lambda f: swap_files(f) or flags(NEW)(f), "files of the training data"),
    (P, lambda f: words("w0", "x")(f) or flags(NEW)(f), "sha256 of the vocabulary"),
    (
        *(P, lambda f: architecture(num_attention_heads=4)(f) or flags(NEW)(f)),
        "num_attention_heads of the architecture: 2",
    ),
    (
        *(P, lambda f: architecture(hidden_dropout_prob=0.0)(f) or flags(NEW)(f)),
        "hidden_dropout_prob: 0.1",
    ),
    (
        *(P, lambda f: replace("lists.json", "MatMul", "Conv2D")(f) or flags(NEW)(f)),
        "lists of the precision",
    ),
    (P, flags(NEW, "--bf16_config_path="), "precision: bf16"),
    (P, flags(), "step of the checkpoint: 0"),
    (P, initial("other"), "checksum of the weights to"),
    (
        C,
        lambda f: replace("classes/dev.tsv", "soup", "stew")(f) or flags(NEW)(f),
        "dev of the evaluation data",
    ),
    (
        *(C, lambda f: _other_label(f) or flags(NEW)(f)),
        "classes of the label set",
    ),
    (S, flags(NEW, "--doc_stride=12"), "doc_stride of the training data: 16"),
    (
        S,
        lambda f: replace("questions.json", "in 1871", "in 1872")(f) or flags(NEW)(f),
        "file_sha256 of the evaluation data",
    ),
]


def _other_label(folder):
    for split in ("train", "dev"):
        path = folder / "classes" / f"{split}.tsv"
        path.write_text(path.read_text().replace("\tfood", "\tmeal"))


def facts(job, arguments):
    """What a worker says of itself."""
    config = parse(job, *arguments)
    plan = start(job, arguments)
    shown = {name: json.dumps(value) for name, value in plan_facts(plan).items()}
    return {
        "host": "here",
        "folder": "",
        "code": {},
        "settings": settings(config),
        "plan": shown,
    }


def test_what_differs_between_ranks_is_refused(base, tmp_path, figure, monkeypatch):
    cases = RANKS if count(0, 1) else RANKS[::3]
    monkeypatch.setattr(run_session, "connect", lambda *_: OneOfTwo())
    usual = {}
    silent = []
    for job, change, text in cases:
        with changed(base, tmp_path, flags(NEW)) as (folder, more):
            if text.startswith("checksum"):
                more = initial("pretraining")(folder)
            key = (job, *(word.removeprefix(str(folder)) for word in more))
            usual[key] = usual.get(key) or facts(job, [*command(job, folder), *more])
        with changed(base, tmp_path, change) as (folder, more):
            worker = facts(job, [*command(job, folder), *more])
        message = difference([usual[key], worker])
        if f"\n  {text}" not in message:
            silent.append((job, text, message))
    print(*silent, sep="\n\n")
    kept = len(cases) - len(silent)
    figure("differs between ranks: refused with both values", kept, len(cases))


REAL = [
    (flags("--eval_files_dir={folder}/train"), "records of the evaluation data: 20"),
    (lambda f: words("w0", "x")(f), "sha256 of the vocabulary"),
    (
        flags("--init_checkpoint={folder}/other"),
        "checksum of the weights to",
    ),
    (lambda f: train_again(5)(f), "sha256 of the training data"),
]


@pytest.mark.horovod
def test_two_real_ranks_are_refused(base, tmp_path, figure):
    cases = REAL[: count(1, len(REAL))]
    for number, (change, text) in enumerate(cases):
        usual = tmp_path / f"usual-{number}"
        shutil.copytree(base, usual)
        with changed(base, tmp_path, change) as (folder, more):
            init = [f"--init_checkpoint={usual}/pretraining"] * ("weights" in text)
            new = [f"--output_dir={tmp_path}/new-{number}", "--horovod"]
            script = [sys.executable, ROOT / "run_pretraining.py"]
            programs = [
                [*("-np", "1"), *script, *command(P, where), *new, *flags_of_one]
                for where, flags_of_one in ((usual, init), (folder, more))
            ]
            result = mpirun_apart(programs, timeout=100)
        assert result.returncode == 1, result.stderr[-3000:]
        assert f"\n  {text}" in result.stderr, result.stderr[-3000:]
        assert result.stderr.count("error: ") == 1
        assert not (tmp_path / f"new-{number}").exists()
    figure("two real ranks differ: refused with both values", len(cases), len(cases))
