"""Logits of a converted classifier in its runtime alone, for `benchmarks/int8.py`.

python benchmarks/peers/in_runtime.py '{"runtime": "onnx", "folder": ...}'
"""

import json
import pathlib
import sys
from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer

# None means that it cannot be imported, wherever it is installed.
sys.modules["bert_tf"] = None

Run = Callable[[dict[str, np.ndarray]], np.ndarray]
BATCH_SIZE = 32


def load_savedmodel(folder: pathlib.Path) -> Run:
    """TensorFlow."""
    import tensorflow as tf

    bert = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda inputs: bert(**{n: tf.constant(x) for n, x in inputs.items()})[
        "logits"
    ].numpy()


def load_litert(folder: pathlib.Path) -> Run:
    """LiteRT; it returns its own memory, which the next call overwrites."""
    from ai_edge_litert.interpreter import Interpreter

    bert = Interpreter(str(folder / "model.tflite"))
    runner = bert.get_signature_runner("serving_default")
    return lambda inputs: runner(**inputs)["logits"].copy()


def load_onnx(folder: pathlib.Path) -> Run:
    """ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    return lambda inputs: session.run(["logits"], inputs)[0]


def load_openvino(folder: pathlib.Path) -> Run:
    """OpenVINO, in float32 where the weights are."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    file = str(folder / "openvino_model.xml")
    bert = openvino.Core().compile_model(file, "CPU", settings)
    return lambda inputs: bert(inputs)["logits"].copy()


RUNTIMES = {
    "savedmodel": (load_savedmodel, np.int32),
    "onnx": (load_onnx, np.int64),
    "litert": (load_litert, np.int32),
    "openvino": (load_openvino, np.int32),
}


def main() -> None:
    """Writes the logits [rows, classes] of pairs of texts."""
    work = json.loads(sys.argv[1])
    folder = pathlib.Path(work["folder"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(work["max_seq_length"], strategy="longest_first")
    tokenizer.enable_padding()
    load, dtype = RUNTIMES[work["runtime"]]
    run, logits = load(folder), []
    pairs = [
        tuple(pair) for pair in json.loads(pathlib.Path(work["pairs"]).read_text())
    ]
    for first in range(0, len(pairs), BATCH_SIZE):
        rows = tokenizer.encode_batch(pairs[first : first + BATCH_SIZE])
        inputs = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        logits.append(run({name: np.array(x, dtype) for name, x in inputs.items()}))
    np.save(work["output"], np.concatenate(logits))


if __name__ == "__main__":
    main()
