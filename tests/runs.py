"""Shared by tests of runs: command lines to configs, manifests, files to values."""

import json

import numpy as np
import tensorflow as tf

from bert_tf import flags
from bert_tf.config import PretrainingConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.sentences import SentencesConfig
from bert_tf.jobs import classifier, pretraining, sentences, squad
from bert_tf.training.checkpoints import RunPosition

JOBS = {
    "pretraining": (PretrainingConfig, pretraining),
    "squad": (SquadConfig, squad),
    "classifier": (ClassifierConfig, classifier),
    "sentences": (SentencesConfig, sentences),
}


def parse(job, *arguments):
    """The config of a command line."""
    return flags.parse(JOBS[job][0], ["run", *map(str, arguments)])


def run(job, *arguments):
    """Runs a command line in this process; returns its results."""
    return JOBS[job][1].run(parse(job, *arguments))


def position(step=3, **more):
    """A manifest's content after some steps of 16 records."""
    values = dict(
        step=step,
        records=16 * step,
        global_batch_size=16,
        learning_rate=0.01,
        seed=42,
        num_records=150,
    )
    return RunPosition(**values | more)


def checkpoint_bytes(folder, step):
    """The tensor files of a checkpoint."""
    prefix = folder / f"model.ckpt-{step}"
    names = (f"{prefix}.index", f"{prefix}.data-00000-of-00001")
    return [open(name, "rb").read() for name in names]


def read_tensors(prefix):
    """Name -> values, as TensorFlow reads a checkpoint."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }


def read_log(folder):
    """The entries of bert_dllog.json."""
    lines = (folder / "bert_dllog.json").read_text().splitlines()
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


def logged_values(folder, name):
    """(step, value) of every step that has a value of that name in the log."""
    return [
        (entry["step"], entry["data"][name])
        for entry in read_log(folder)
        if isinstance(entry.get("step"), int) and name in entry["data"]
    ]


def read_results(folder):
    """Name -> value in eval_results.txt."""
    lines = (folder / "eval_results.txt").read_text().splitlines()
    return {name: float(value) for name, value in (x.split(" = ") for x in lines)}


def read_json(path):
    """The content of a JSON file."""
    return json.loads(path.read_text())


def pretraining_flags(
    config_file, records, output_dir, *more, batch=4, accumulation=4, steps=8
):
    """The command line of a small pre-training; the last of equal flags wins."""
    return [
        f"--bert_config_file={config_file}",
        f"--input_files_dir={records}",
        f"--output_dir={output_dir}",
        f"--train_batch_size={batch}",
        f"--num_accumulation_steps={accumulation}",
        f"--num_train_steps={steps}",
        "--learning_rate=0.01",
        "--do_train",
        *more,
    ]


def assert_same_bytes(arrays, *others):
    """Tensors by name are equal to the last bit; each worker has its own messages."""
    for other in others:
        for name, array in arrays.items():
            if name == "result messages":
                continue
            assert array.tobytes() == other[name].tobytes(), name


# A softmax does not change when a number is added to all its scores: the gradients of
# these are rounding alone.
UNSEEN = ("key/bias", "cls/squad/output_bias", "layer_1/output/LayerNorm/beta")


def assert_equal_to_rounding(ours, expected, tolerance):
    """Tensors differ by less than a part of their norm."""
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        if not any(part in name for part in UNSEEN):
            error = np.linalg.norm(ours[name] - values)
            assert error < tolerance * np.linalg.norm(values) + 1e-7, name
