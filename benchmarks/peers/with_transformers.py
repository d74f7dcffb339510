"""transformers on PyTorch: bfloat16 autocast, AdamW, clipping, dropout 0.1."""

import numpy as np
import torch
import transformers
import worker
from transformers import BertConfig, BertForPreTraining, BertForQuestionAnswering

work = worker.workload()
torch.set_num_threads(work["threads"])
transformers.logging.set_verbosity_error()
layers, width, heads, inner = worker.SHAPES[work["model"]]
config = BertConfig(
    vocab_size=worker.VOCABULARY,
    hidden_size=width,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    intermediate_size=inner,
    attn_implementation="sdpa",
)
rng = np.random.default_rng(0)
lengths = worker.lengths_of(work)
batch, length, num_masked = len(lengths), work["length"], work["predictions"]
ids = torch.tensor(rng.integers(1000, 30000, (batch, length)))
mask = torch.tensor([[1] * n + [0] * (length - n) for n in lengths])
segments = torch.zeros_like(ids)


def training() -> worker.Step:
    """A step of pre-training; the head sees all positions, or the masked ones."""
    model = BertForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    labels = torch.full((batch, length), -100)
    labels[:, 1 : 1 + num_masked] = ids[:, 1 : 1 + num_masked]
    follows = torch.zeros(batch, dtype=torch.long)
    loss_of = torch.nn.functional.cross_entropy

    def masked_only() -> torch.Tensor:
        outputs = model.bert(ids, attention_mask=mask, token_type_ids=segments)
        hidden = outputs.last_hidden_state[:, 1 : 1 + num_masked]
        words, follow = model.cls(hidden, outputs.pooler_output)
        loss = loss_of(
            words.reshape(-1, worker.VOCABULARY).float(),
            labels[:, 1 : 1 + num_masked].reshape(-1),
        )
        return loss + loss_of(follow.float(), follows)

    def everywhere() -> torch.Tensor:
        return model(
            input_ids=ids,
            attention_mask=mask,
            token_type_ids=segments,
            labels=labels,
            next_sentence_label=follows,
        ).loss

    forward = masked_only if work.get("masked_only") else everywhere

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def prediction() -> worker.Step:
    """A batch of questions and contexts."""
    model = BertForQuestionAnswering(config).eval()

    def step() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            model(input_ids=ids, attention_mask=mask, token_type_ids=segments)

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


kinds = {"train": training, "predict": prediction, "products": products}
worker.serve(kinds[work["kind"]]())
