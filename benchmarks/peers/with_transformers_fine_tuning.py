"""transformers' fine-tuning: bfloat16 autocast, AdamW, clipping, dropout 0.1.

A step of training is an optimizer step on the next of all examples, one of prediction
is all examples; each padded to the full length, as by `pad_to_max_length` of the
examples `run_qa.py` and `run_glue.py`. Tensors are made before.
"""

from collections.abc import Iterator

import numpy as np
import torch
import transformers
import worker
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
)

work = worker.workload()
torch.set_num_threads(work["threads"])
transformers.logging.set_verbosity_error()
lengths, length = np.array(work["lengths"]), work["length"]
is_span = work["task"] == "squad"
count = len(lengths)
rng = np.random.default_rng(0)
mask = torch.tensor(np.arange(length) < lengths[:, None]).long()
data = {
    "input_ids": torch.tensor(rng.integers(1000, 30000, (count, length))) * mask,
    "attention_mask": mask,
    "token_type_ids": torch.zeros_like(mask),
}
if is_span:
    names = ("start_positions", "end_positions")
    labels = {name: torch.tensor(rng.integers(0, lengths)) for name in names}
else:
    labels = {"labels": torch.tensor(rng.integers(0, 2, count))}


def make_model() -> torch.nn.Module:
    """The model, whose loss is its own."""
    config = BertConfig(
        **worker.architecture(work),
        attn_implementation="sdpa",
    )
    kind = BertForQuestionAnswering if is_span else BertForSequenceClassification
    return kind(config)


def micro_batches() -> Iterator[dict[str, torch.Tensor]]:
    """All examples again and again."""
    size = work["micro_batch"]
    while True:
        for first in range(0, count - size + 1, size):
            chosen = slice(first, first + size)
            yield {name: values[chosen] for name, values in (data | labels).items()}


def training() -> worker.Step:
    """Optimizer steps on the next examples each."""
    model = make_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    batches = micro_batches()
    parts = work["batch"] // work["micro_batch"]

    def step() -> None:
        for _ in range(parts):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**next(batches)).loss
            (loss / parts).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def prediction() -> worker.Step:
    """The logits of all examples."""
    model = make_model().eval()

    def step() -> None:
        for first in range(0, count, work["batch"]):
            chosen = slice(first, first + work["batch"])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                model(**{name: values[chosen] for name, values in data.items()})

    return step


worker.serve({"train": training, "predict": prediction}[work["kind"]]())
