"""transformers on PyTorch: bfloat16, AdamW, clipping, dropout 0.1.

As it ships, the head of pre-training computes all positions, and a prediction casts its
weights each time. In its best form (`best`) the head computes the masked positions, the
optimizer is one fused operation and the weights of a prediction are bfloat16; `compile`
is the mode of torch.compile. Attention with dropout is faster on processors written out
(`eager`) than as `sdpa`, which has no kernel with dropout there.

On a GPU (`device`) full rows have no mask in its best form, so that `sdpa` takes flash
attention.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
import worker
from transformers import BertConfig, BertForPreTraining, BertForQuestionAnswering

work = worker.workload()
torch.set_num_threads(work["threads"])
torch.manual_seed(0)
transformers.logging.set_verbosity_error()
rate = work.get("dropout", 0.1)
config = BertConfig(
    **worker.architecture(work),
    hidden_dropout_prob=rate,
    attention_probs_dropout_prob=rate,
    attn_implementation=work.get("attention", "sdpa"),
)
is_best = work.get("best", False)
device = work.get("device", "cpu")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled if that is asked for."""
    mode = work.get("compile")
    # Batches of natural lengths differ in their shapes.
    is_varied = "at_once" in work
    return torch.compile(function, mode=mode, dynamic=is_varied) if mode else function


def inputs_of(sequences: list[worker.Sequence]) -> dict[str, torch.Tensor]:
    """A padded batch."""
    ids, mask = (torch.from_numpy(x).to(device) for x in worker.padded(sequences))
    inputs = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
    if device == "cuda" and is_best and bool(mask.all()):
        return inputs
    return inputs | {"attention_mask": mask}


def training() -> worker.Step:
    """A step of pre-training; the head sees all positions, or the masked ones."""
    model = BertForPreTraining(config)
    if "weights" in work:
        model.save_pretrained(work["weights"])
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=is_best or None)
    sequences = worker.sequences_of(work)
    inputs = inputs_of(sequences)
    length = inputs["input_ids"].shape[1]
    labels = torch.full_like(inputs["input_ids"], -100)
    for row, sequence in enumerate(sequences):
        labels[row, sequence.positions] = torch.from_numpy(sequence.labels).to(device)
    places = torch.from_numpy(
        np.concatenate([i * length + s.positions for i, s in enumerate(sequences)])
    )
    places = places.to(device)
    chosen = labels.reshape(-1)[places]
    follows = torch.tensor([s.follows for s in sequences], device=device)
    loss_of = torch.nn.functional.cross_entropy

    def masked_only() -> torch.Tensor:
        outputs = model.bert(**inputs)
        hidden = outputs.last_hidden_state.reshape(-1, config.hidden_size)[places]
        words, follow = model.cls(hidden, outputs.pooler_output)
        return loss_of(words.float(), chosen) + loss_of(follow.float(), follows)

    def everywhere() -> torch.Tensor:
        return model(**inputs, labels=labels, next_sentence_label=follows).loss

    forward = compiled(masked_only if is_best else everywhere)

    def step() -> float:
        with torch.autocast(device, torch.bfloat16):
            loss = forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def prediction() -> worker.Step:
    """Batches of questions and contexts."""
    model = BertForQuestionAnswering(config).to(device).eval()
    batches = [inputs_of(part) for part in worker.parts_of(work)]
    if is_best:
        model = model.to(torch.bfloat16)
    predict = compiled(model)

    def step() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, not is_best):
            for batch in batches:
                predict(**batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def products() -> worker.Step:
    """The dense layers' products of a step alone, with both gradients; no attention."""
    shapes = worker.products_of(work)
    half = torch.bfloat16
    data = [
        (
            torch.randn(m, k).to(half),
            torch.randn(k, n).to(half),
            torch.randn(m, n).to(half),
        )
        for m, k, n, _ in shapes
    ]

    def step() -> None:
        for (x, w, dy), (*_, count) in zip(data, shapes, strict=True):
            for _ in range(count):
                x @ w, dy @ w.T, x.T @ dy

    return step


def peak_mb() -> float:
    """Most memory that tensors had on the GPU."""
    return torch.cuda.max_memory_allocated() / 2**20


kinds = {"train": training, "predict": prediction, "products": products}
gpu = {"peak_memory": peak_mb} if device == "cuda" else {}
worker.serve(kinds[work["kind"]](), **gpu)
