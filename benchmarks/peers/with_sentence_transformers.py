"""Contrastive training with sentence-transformers, for `benchmarks/sentences.py`.

    python benchmarks/peers/with_sentence_transformers.py '{"weights": ...}'

Its MultipleNegativesRankingLoss in a plain loop: AdamW, linear warm-up and decay,
clipping to 1. Prints accuracy and mean reciprocal rank of the search for passages.
"""

import json
import pathlib
import shutil
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses, modules
from transformers import get_linear_schedule_with_warmup


def load(work: dict[str, Any]) -> SentenceTransformer:
    """Mean pooling of the start model; a folder without vocabulary gets one."""
    with tempfile.TemporaryDirectory() as folder:
        for source in (work["vocabulary"], work["weights"]):
            for path in pathlib.Path(source).iterdir():
                shutil.copy(path, folder)
        encoder = modules.Transformer(folder, max_seq_length=work["max_seq_length"])
    pooling = modules.Pooling(encoder.get_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[encoder, pooling], device="cpu")


def read(path: pathlib.Path) -> list[tuple[str, str]]:
    """The pairs of a file."""
    rows = map(json.loads, path.read_text().splitlines())
    return [(row["anchor"], row["positive"]) for row in rows]


def train(model: SentenceTransformer, work: dict[str, Any]) -> None:
    """Takes the steps."""
    torch.manual_seed(work["seed"])
    rng = np.random.default_rng(work["seed"])
    pairs = read(pathlib.Path(work["folder"], "train.jsonl"))
    loss_of = losses.MultipleNegativesRankingLoss(model, scale=work["scale"])
    plain = [p for p in model.parameters() if p.ndim < 2]
    others = [p for p in model.parameters() if p.ndim >= 2]
    groups = [{"params": others}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=work["learning_rate"], eps=1e-6, weight_decay=0.01
    )
    warmup = int(work["warmup"] * work["steps"])
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, work["steps"])
    model.train()
    order: list[int] = []
    for step in range(work["steps"]):
        if len(order) < work["batch_size"]:
            order = rng.permutation(len(pairs)).tolist()
        batch = [pairs[order.pop()] for _ in range(work["batch_size"])]
        texts = [list(column) for column in zip(*batch, strict=True)]
        loss = loss_of([model.preprocess(column) for column in texts], None)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 10 == 0:
            print("peer step", step + 1, "loss", round(loss.item(), 4), flush=True)


def main() -> None:
    """Trains and scores, or compares vectors of an exported model."""
    work = json.loads(sys.argv[1])
    if "exported" in work:
        kept = np.load(work["vectors"])
        model = SentenceTransformer(work["exported"], device="cpu")
        vectors = model.encode(kept["texts"].tolist())
        print("largest difference", float(np.abs(vectors - kept["vectors"]).max()))
        return
    model = load(work)
    if work["steps"]:
        train(model, work)
    model.eval()
    pairs = read(pathlib.Path(work["folder"], "dev.jsonl"))
    anchors, positives = (
        model.encode(list(column), normalize_embeddings=True)
        for column in zip(*pairs, strict=True)
    )
    scores = anchors @ positives.T
    ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
    found = {"accuracy_at_1": (ranks == 1).mean(), "mrr": (1 / ranks).mean()}
    found = {name: round(float(value), 4) for name, value in found.items()}
    print("peer", "seed" if work["seed"] else "start", work["seed"], found, flush=True)


if __name__ == "__main__":
    main()
