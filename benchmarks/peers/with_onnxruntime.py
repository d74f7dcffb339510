"""ONNX Runtime: predictions of transformers' model, exported and fused; float32.

Its products for x86 processors have no bfloat16.
"""

import pathlib
import tempfile

import onnxruntime
import torch
import worker
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from transformers import BertConfig, BertForQuestionAnswering

work = worker.workload()
torch.manual_seed(0)
config = BertConfig(
    **worker.architecture(work),
    attn_implementation="eager",
)
batches = worker.padded_inputs(work)
names = list(batches[0])
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = work["threads"]
with tempfile.TemporaryDirectory() as folder:
    path = str(pathlib.Path(folder, "model.onnx"))
    torch.onnx.export(
        BertForQuestionAnswering(config).eval(),
        tuple(torch.from_numpy(batches[0][name]) for name in names),
        path,
        input_names=names,
        output_names=["start_logits", "end_logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
        dynamo=False,
    )
    fused = optimizer.optimize_model(
        path,
        "bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=FusionOptions("bert"),
    )
    fused.save_model_to_file(path)
    session = onnxruntime.InferenceSession(
        path, settings, providers=["CPUExecutionProvider"]
    )


def predict() -> None:
    """All batches, one after the other."""
    for batch in batches:
        session.run(None, batch)


worker.serve(predict, "computed in f32: no bf16 products for x86")
