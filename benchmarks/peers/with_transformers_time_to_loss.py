"""Pre-training with transformers on PyTorch from raw text, for a given time.

    python benchmarks/peers/with_transformers_time_to_loss.py '{"model": "tiny", ...}'

In its quickest form: no padding, masks drawn anew each time, the head on masked tokens
only, no next-sentence loss, bfloat16 autocast, AdamW, torch.compile. Sequences are cut
in two at a random place, so that they look like those of the evaluation, where half of
the second parts are from elsewhere. A share of the time may go to shorter sequences
first, of as many tokens in a batch; the learning rate rises and falls in each part.
"""

import json
import pathlib
import time

import numpy as np
import torch
import transformers
import worker
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForPreTraining

CLS, SEP, MASK = 101, 102, 103
LENGTH = 128

work = worker.workload()
torch.set_num_threads(work["threads"])
torch.manual_seed(work["seed"])
transformers.logging.set_verbosity_error()
rng = np.random.default_rng(work["seed"])


def tokens() -> np.ndarray:
    """All words of the text, one document after the other."""
    tokenizer = BertWordPieceTokenizer(work["vocabulary"], lowercase=True)
    lines = pathlib.Path(work["text"]).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return np.concatenate([np.array(text.ids, np.int64) for text in encoded])


def batch_of(words: np.ndarray, length: int) -> dict[str, torch.Tensor]:
    """Sequences from anywhere, masked anew."""
    size, inner = work["batch"] * LENGTH // length, length - 3
    masked = round(0.15 * length)  # Special tokens count, as in our records.
    starts = rng.integers(len(words) - inner, size=(size, 2))
    is_random = rng.random(size) < 0.5
    cuts = rng.integers(1, inner, size)
    ids = np.full((size, length), SEP)
    ids[:, 0] = CLS
    segments = np.zeros((size, length), np.int64)
    places = np.empty((size, masked), np.int64)
    for row in range(size):
        cut = cuts[row]
        first, second = starts[row, 0], starts[row, int(is_random[row])]
        ids[row, 1 : 1 + cut] = words[first : first + cut]
        ids[row, 2 + cut : -1] = words[second + cut : second + inner]
        segments[row, 2 + cut :] = 1
        word_places = np.delete(np.arange(1, length - 1), cut)
        places[row] = np.sort(rng.choice(word_places, masked, replace=False))
    labels = np.take_along_axis(ids, places, 1)
    chance = rng.random(labels.shape)
    others = rng.integers(worker.VOCABULARY, size=labels.shape)
    inputs = np.where(chance < 0.8, MASK, np.where(chance < 0.9, others, labels))
    np.put_along_axis(ids, places, inputs, 1)
    flat = places + length * np.arange(size)[:, None]
    arrays = {"ids": ids, "segments": segments, "places": flat.reshape(-1)}
    arrays |= {"labels": labels.reshape(-1)}
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def held_out_loss(model: BertForPreTraining, held_out: dict[str, np.ndarray]) -> float:
    """The mean over all masked tokens."""
    model.eval()
    total = count = 0.0
    for first in range(0, len(held_out["input_ids"]), 32):
        part = {
            name: torch.from_numpy(values[first : first + 32].astype(np.int64))
            for name, values in held_out.items()
            if name != "masked_lm_weights"
        }
        is_real = torch.from_numpy(
            held_out["masked_lm_weights"][first : first + 32] > 0
        )
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            hidden = model.bert(
                part["input_ids"],
                attention_mask=part["input_mask"],
                token_type_ids=part["segment_ids"],
            ).last_hidden_state
            rows = torch.arange(len(hidden))[:, None]
            hidden = hidden[rows, part["masked_lm_positions"]][is_real]
            scores = model.cls.predictions(hidden).float()
        labels = part["masked_lm_ids"][is_real]
        total += torch.nn.functional.cross_entropy(
            scores, labels, reduction="sum"
        ).item()
        count += len(labels)
    model.train()
    return total / count


def make_model() -> BertForPreTraining:
    """The model, to be trained."""
    config = BertConfig(
        **worker.architecture(work),
        hidden_dropout_prob=work["dropout"],
        attention_probs_dropout_prob=work["dropout"],
        attn_implementation="eager",
    )
    return BertForPreTraining(config).train()


def train() -> None:
    """Trains until the time is over, and writes the curve."""
    words = tokens()
    prepared = time.time() - work["start"]
    held_out = dict(np.load(work["held_out"]))
    model = make_model()
    optimizer = torch.optim.AdamW(
        model.parameters(), work["rate"], weight_decay=0.01, fused=True
    )
    width = model.config.hidden_size

    def loss_of(
        ids: torch.Tensor,
        segments: torch.Tensor,
        places: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        mask = torch.ones_like(ids)
        outputs = model.bert(ids, attention_mask=mask, token_type_ids=segments)
        hidden = outputs.last_hidden_state.reshape(-1, width)[places]
        scores = model.cls.predictions(hidden).float()
        return torch.nn.functional.cross_entropy(scores, labels)

    if work["compile"]:
        # One program for each length, of fixed shapes.
        loss_of = torch.compile(loss_of, mode=work["compile"], dynamic=False)
    curve, step, evaluated = [], 0, 0
    while True:
        share = (time.time() - work["start"]) / work["seconds"]
        must_end = share >= 1
        if must_end or share * work["evaluations"] >= evaluated + 1:
            evaluated = int(share * work["evaluations"])
            loss = held_out_loss(model, held_out)
            seconds = time.time() - work["start"]
            curve.append({"seconds": seconds, "step": step, "loss": loss})
        if must_end:
            break
        short = work["short_share"]
        is_short = share < short
        done = share / short if is_short else (share - short) / (1 - short)
        decay = (1 - done) / (1 - work["warmup"])
        rate = work["rate"] * min(done / work["warmup"], decay)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            length = work["short_length"] if is_short else LENGTH
            loss = loss_of(**batch_of(words, length))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    result = {"prepared_seconds": prepared, "curve": curve}
    pathlib.Path(work["output"]).write_text(json.dumps(result))


train()
