"""OpenVINO: predictions of transformers' model, converted; bfloat16 where it can."""

import openvino
import torch
import worker
from transformers import BertConfig, BertForQuestionAnswering

work = worker.workload()
torch.manual_seed(0)
config = BertConfig(
    **worker.architecture(work),
    attn_implementation="sdpa",
)
batches = worker.padded_inputs(work)
example = {name: torch.from_numpy(values) for name, values in batches[0].items()}
model = openvino.convert_model(
    BertForQuestionAnswering(config).eval(), example_input=example
)
if len(batches) == 1:  # One shape only, known to the compiler.
    model.reshape({name: list(values.shape) for name, values in batches[0].items()})
compiled = openvino.compile_model(
    model,
    "CPU",
    {
        "INFERENCE_PRECISION_HINT": "bf16",
        "PERFORMANCE_HINT": work.get("hint", "LATENCY"),
        "INFERENCE_NUM_THREADS": work["threads"],
        # More than one request would compute several batches at a time.
        "NUM_STREAMS": 1,
    },
)
request = compiled.create_infer_request()


def predict() -> None:
    """All batches, one after the other."""
    for batch in batches:
        request.infer(batch, share_inputs=True)


# Where the processor has no bfloat16, the hint is ignored.
precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
worker.serve(predict, f"computed in {precision}")
