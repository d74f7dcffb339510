"""Runs converted models in a process with their runtime and NumPy, without bert_tf.

    python runtime_worker.py RUNTIME FOLDER

FOLDER has a folder for each model, and inputs.npz: BATCH/INPUT -> [B, S]. Writes
outputs.npz: MODEL/BATCH/OUTPUT -> numbers.
"""

import pathlib
import sys

import numpy as np

# None means that it cannot be imported, wherever it is installed.
sys.modules["bert_tf"] = None


def load_savedmodel(folder):
    import tensorflow as tf

    bert = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda inputs: bert(**{n: tf.constant(x) for n, x in inputs.items()})


def load_litert(folder):
    from ai_edge_litert.interpreter import Interpreter

    bert = Interpreter(str(folder / "model.tflite"))
    runner = bert.get_signature_runner("serving_default")
    return lambda inputs: runner(**inputs)


def load_onnx(folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    names = [x.name for x in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


def load_openvino(folder):
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    file = str(folder / "openvino_model.xml")
    bert = openvino.Core().compile_model(file, "CPU", settings)
    return lambda inputs: {o.any_name: x for o, x in bert(inputs).items()}


RUNTIMES = {
    "savedmodel": (load_savedmodel, np.int32),
    "litert": (load_litert, np.int32),
    "onnx": (load_onnx, np.int64),
    "openvino": (load_openvino, np.int32),
}


def main(runtime, folder):
    if runtime != "savedmodel":
        sys.modules["tensorflow"] = None
    load, dtype = RUNTIMES[runtime]
    inputs = {}
    for path, x in np.load(folder / "inputs.npz").items():
        batch, name = path.split("/")
        inputs.setdefault(batch, {})[name] = x.astype(dtype)
    outputs = {}
    for model in sorted(path for path in folder.iterdir() if path.is_dir()):
        run = load(model)
        for batch, features in inputs.items():
            for name, x in run(features).items():
                # A copy: LiteRT returns its own memory.
                outputs[f"{model.name}/{batch}/{name}"] = np.array(x)
    loaded = [name for name in sys.modules if name.startswith("bert_tf.")]
    if loaded:
        raise ImportError(f"{loaded} must not be loaded here.")
    np.savez(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
