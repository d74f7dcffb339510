"""Exports Keras models to the files of runtimes, by their tools, and runs them.

TensorFlow is imported by what exports or runs: its options are checked without it.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bert_tf.config import BertConfig
from bert_tf.errors import RunError
from bert_tf.interop.export import Form

if TYPE_CHECKING:
    import keras

Arrays = Mapping[str, np.ndarray]


class Runtime(NamedTuple):
    """A program that runs models.

    Attributes:
      name: Its name.
      file: The main file of a folder for it.
      export: (model, path, int8) -> None: writes the file.
      run: (path, inputs) -> outputs.
      ending: Extension of a file for it; empty where only a folder can be written.
      modules: What must be installed to export and run.
      int8_modules: What more for int8; None if it has no int8.
      extra: The extra of this package that installs them.
      dtype: Type of the inputs: what its users' tokenizers return.
    """

    name: str
    file: str
    export: "Callable[[keras.Model, str, bool], None]"
    run: Callable[[str, Arrays], Arrays]
    ending: str = ""
    modules: tuple[str, ...] = ()
    int8_modules: tuple[str, ...] | None = ()
    extra: str = ""
    dtype: str = "int32"

    def require_modules(self, int8: bool) -> None:
        """Refuses what cannot be done.

        Raises:
          ValueError: if it has no int8.
          RunError: if a package is missing; the message has the command.
        """
        if int8 and self.int8_modules is None:
            raise ValueError(
                f"`int8` must not be set for {self.name}, for which it is not "
                "implemented. Received: --int8. Pass --to=onnx, litert or openvino."
            )
        names = self.modules + (self.int8_modules or ()) * int8
        missing = [n for n in names if importlib.util.find_spec(n) is None]
        if missing:
            raise RunError(
                f"To write for {self.name}, {', '.join(missing)} must be installed: "
                f'`pip install "bert_tf[{self.extra}]"` does.'
            )


def _export_savedmodel(model: "keras.Model", path: str, int8: bool) -> None:
    import keras
    import tensorflow as tf

    del int8
    signature = {x.name: tf.TensorSpec(x.shape, x.dtype, x.name) for x in model.inputs}
    # As `Model.export` does, which also tracks the model and so writes weights twice.
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", lambda x: model(x, training=False), [signature])
    archive.write_out(os.path.dirname(path), verbose=False)


def _run_savedmodel(path: str, inputs: Arrays) -> Arrays:
    import tensorflow as tf

    loaded = tf.saved_model.load(os.path.dirname(path))
    outputs = loaded.signatures["serving_default"](
        **{name: tf.constant(x) for name, x in inputs.items()}
    )
    return {name: x.numpy() for name, x in outputs.items()}


def _export_onnx(model: "keras.Model", path: str, int8: bool) -> None:
    whole = f"{path}.float.onnx" if int8 else path
    model.export(whole, format="onnx", verbose=False)
    if int8:
        quantization = importlib.import_module("onnxruntime.quantization")
        quantization.quantize_dynamic(whole, path, per_channel=True)
        os.unlink(whole)


def _run_onnx(path: str, inputs: Arrays) -> Arrays:
    session = importlib.import_module("onnxruntime").InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def _export_litert(model: "keras.Model", path: str, int8: bool) -> None:
    import tensorflow as tf

    model.export(
        path,
        format="litert",
        verbose=False,
        optimizations=[tf.lite.Optimize.DEFAULT] if int8 else [],
        # Keras would allow operations that only TensorFlow's delegate has.
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
    )


def _run_litert(path: str, inputs: Arrays) -> Arrays:
    try:
        module = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:  # TensorFlow has the same interpreter.
        from tensorflow import lite as module
    return module.Interpreter(path).get_signature_runner()(**inputs)


def _export_openvino(model: "keras.Model", path: str, int8: bool) -> None:
    whole = f"{path}.float.xml" if int8 else path
    model.export(whole, format="openvino", verbose=False)
    if int8:
        openvino = importlib.import_module("openvino")
        nncf = importlib.import_module("nncf")
        read = openvino.Core().read_model(whole)
        mode = nncf.CompressWeightsMode.INT8_ASYM
        packed = nncf.compress_weights(read, mode=mode)
        openvino.save_model(packed, path, compress_to_fp16=False)
        del read, packed  # They map the file of weights.
        for name in (whole, whole.removesuffix(".xml") + ".bin"):
            os.unlink(name)


def _run_openvino(path: str, inputs: Arrays) -> Arrays:
    openvino = importlib.import_module("openvino")
    # Without the hint, processors with bfloat16 compute in it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return {output.any_name: x for output, x in compiled(dict(inputs)).items()}


RUNTIMES = {
    Form.SAVEDMODEL: Runtime(
        name="TensorFlow",
        file="saved_model.pb",
        export=_export_savedmodel,
        run=_run_savedmodel,
        int8_modules=None,
    ),
    Form.ONNX: Runtime(
        name="ONNX Runtime",
        file="model.onnx",
        export=_export_onnx,
        run=_run_onnx,
        ending=".onnx",
        modules=("tf2onnx", "onnxruntime"),
        extra="onnx",
        dtype="int64",
    ),
    Form.LITERT: Runtime(
        name="LiteRT",
        file="model.tflite",
        export=_export_litert,
        run=_run_litert,
        ending=".tflite",
    ),
    Form.OPENVINO: Runtime(
        name="OpenVINO",
        file="openvino_model.xml",
        export=_export_openvino,
        run=_run_openvino,
        ending=".xml",
        modules=("openvino",),
        int8_modules=("nncf",),
        extra="openvino",
    ),
}


def probe(config: BertConfig, dtype: str) -> dict[str, Any]:
    """Inputs of eight rows of random words, padded to different lengths."""
    rng = np.random.default_rng(0)
    width = min(32, config.max_position_embeddings)
    lengths = np.linspace(width, max(width // 4, 1), 8).astype(int)
    mask = np.arange(width) < lengths[:, None]
    ids = rng.integers(0, config.vocab_size, mask.shape) * mask
    segments = rng.integers(0, config.type_vocab_size, mask.shape) * mask
    return {
        "input_ids": ids.astype(dtype),
        "attention_mask": mask.astype(dtype),
        "token_type_ids": segments.astype(dtype),
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what exporters print and warn of; their errors are raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
