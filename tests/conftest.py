"""Fixtures that several rooms share: a tiny architecture and tiny records."""

import os
import pathlib

# Before TensorFlow is loaded: few threads, since several processes share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest

from bert_tf import fused_ops
from bert_tf.config import BertConfig

ROOT = pathlib.Path(__file__).parents[1]
TINY = dict(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
)
# Widths that the fused operations take.
WIDE = TINY | dict(hidden_size=64, num_attention_heads=2, intermediate_size=96)


NOT_HERE = "not tested here: "
INSTRUCTION_SETS = list(fused_ops.ISA_FLAGS)


def require_isa(name):
    """Skips a test of an instruction set that cannot be used here."""
    if fused_ops.library_file() is None and not fused_ops.wrong_machine():
        pytest.fail("the library is not built: `make setup` builds it")
    if name not in fused_ops.paths():
        pytest.skip(f"{NOT_HERE}{name}, {fused_ops.why_not(name)}")


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request):
    """Each instruction set of the fused operations that can be used here."""
    require_isa(request.param)
    fused_ops.limit(request.param)
    yield request.param
    fused_ops.limit("")


def pytest_terminal_summary(terminalreporter):
    """Lists the instruction sets that could not be tested here."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {str(report.longrepr[-1]) for report in skipped}
    for reason in sorted(r for r in reasons if NOT_HERE in r):
        terminalreporter.write_line(reason.removeprefix("Skipped: "))


@pytest.fixture(scope="session")
def tiny_config():
    """Two layers, hidden 8, dropout 0.1."""
    return BertConfig(**TINY)


@pytest.fixture(scope="session")
def tiny_config_file(tmp_path_factory):
    """The same as a file."""
    import json

    path = tmp_path_factory.mktemp("config") / "bert_config.json"
    path.write_text(json.dumps(TINY))
    return str(path)


def make_example(rng, *, vocab_size=30, max_seq_length=16, max_predictions=4):
    """A record of random tokens, with 0 to `max_predictions` masked ones."""
    length = int(rng.integers(8, max_seq_length + 1))
    count = int(rng.integers(0, max_predictions + 1))
    masked = np.sort(rng.choice(np.arange(1, length), count, replace=False))

    def padded(values, size):
        return [*map(int, values), *[0] * (size - len(values))]

    return {
        "input_ids": padded(rng.integers(5, vocab_size, length), max_seq_length),
        "input_mask": padded([1] * length, max_seq_length),
        "segment_ids": padded([0] * 5 + [1] * (length - 5), max_seq_length),
        "masked_lm_positions": padded(masked, max_predictions),
        "masked_lm_ids": padded(rng.integers(5, vocab_size, count), max_predictions),
        "masked_lm_weights": [1.0] * count + [0.0] * (max_predictions - count),
        "next_sentence_labels": [int(rng.integers(0, 2))],
    }


def write_records(path, examples):
    """Writes a TFRecord file with TensorFlow's own writer."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            features = {}
            for name, values in example.items():
                if name.endswith("_weights"):
                    kind = {"float_list": tf.train.FloatList(value=values)}
                else:
                    kind = {"int64_list": tf.train.Int64List(value=values)}
                features[name] = tf.train.Feature(**kind)
            message = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(message.SerializeToString())


@pytest.fixture(scope="session")
def tiny_records(tmp_path_factory):
    """A folder of 3 record files with 150 records: S=16, P=4, 30 words."""
    folder = tmp_path_factory.mktemp("records") / "train"
    folder.mkdir()
    rng = np.random.default_rng(7)
    for number, count in enumerate((60, 50, 40)):
        examples = [make_example(rng) for _ in range(count)]
        write_records(folder / f"part-{number}.tfrecord", examples)
    return str(folder)
