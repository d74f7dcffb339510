"""Fine-tuning with transformers on PyTorch: a plain loop for `benchmarks/quality.py`.

    python benchmarks/peers/with_transformers_tasks.py '{"task": "squad", ...}'

AdamW, linear warm-up and decay, clipping, bfloat16 autocast, dropout of the config, as
in the examples `run_glue.py` and `run_qa.py` of transformers. A batch is computed in
parts of similar length, each padded to its own longest: the same loss in less time.
Writes the predictions as JSON: classes of the dev questions, answers by question id,
tags of sentences, or labels of texts.
"""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    AutoTokenizer,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

Features = list[dict[str, Any]]
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
PARTS = 4  # Of a batch, by length.
MULTIPLE = 64  # Of tokens: each length that oneDNN meets costs it a compilation.
NUM_BEST = 20
MAX_ANSWER_TOKENS = 30
STRIDE = 128  # Tokens that two windows share, as `run_qa.py` says it.


def read_lines(path: str) -> list[dict[str, Any]]:
    """Objects of a .jsonl file."""
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def boolq_features(
    rows: list[dict[str, Any]],
    tokenizer: transformers.PreTrainedTokenizerBase,
    most: int,
) -> Features:
    """Pairs of question and passage, cut to `most` tokens."""
    encoded = tokenizer(
        [row["question"] for row in rows],
        [row["passage"] for row in rows],
        truncation="longest_first",
        max_length=most,
    )
    return [
        {name: encoded[name][i] for name in INPUTS} | {"labels": int(row["label"])}
        for i, row in enumerate(rows)
    ]


def read_tags(path: str) -> list[dict[str, Any]]:
    """Words and tags of the sentences of a CoNLL file."""
    sentences = []
    for part in pathlib.Path(path).read_text().split("\n\n"):
        rows = [line.split() for line in part.splitlines() if line]
        rows = [row for row in rows if row[0] != "-DOCSTART-"]
        if rows:
            words, tags = [row[0] for row in rows], [row[-1] for row in rows]
            sentences.append({"words": words, "tags": tags})
    return sentences


def tag_features(
    sentences: list[dict[str, Any]],
    tokenizer: transformers.PreTrainedTokenizerBase,
    most: int,
    names: list[str],
) -> Features:
    """Sentences; the number of its tag for the first piece of a word, else -100."""
    features = []
    for sentence in sentences:
        encoded = tokenizer(
            sentence["words"],
            is_split_into_words=True,
            truncation=True,
            max_length=most,
        )
        places = encoded.word_ids()
        is_first = [p is not None and places[i - 1] != p for i, p in enumerate(places)]
        labels = [
            names.index(sentence["tags"][place]) if first else -100
            for place, first in zip(places, is_first, strict=True)
        ]
        features.append({name: encoded[name] for name in INPUTS} | {"labels": labels})
    return features


def label_features(
    rows: list[dict[str, Any]],
    tokenizer: transformers.PreTrainedTokenizerBase,
    most: int,
    names: list[str],
) -> Features:
    """Texts; 1.0 for each label that they have."""
    encoded = tokenizer([r["text"] for r in rows], truncation=True, max_length=most)
    return [
        {name: encoded[name][i] for name in INPUTS}
        | {"labels": np.array([n in row["labels"] for n in names], np.float32)}
        for i, row in enumerate(rows)
    ]


def choice_features(
    rows: list[dict[str, Any]],
    tokenizer: transformers.PreTrainedTokenizerBase,
    most: int,
) -> Features:
    """For each question as many sequences as it has endings, after its context."""
    features = []
    for row in rows:
        endings = row["endings"]
        encoded = tokenizer(
            [row["context"]] * len(endings),
            endings,
            truncation="longest_first",
            max_length=most,
        )
        inputs = {name: encoded[name] for name in INPUTS}
        features.append(inputs | {"labels": int(row["label"])})
    return features


def read_squad(path: str) -> list[dict[str, Any]]:
    """Questions with their contexts and first answers."""
    articles = json.loads(pathlib.Path(path).read_text())["data"]
    return [
        question | {"context": paragraph["context"]}
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def squad_features(
    questions: list[dict[str, Any]],
    tokenizer: transformers.PreTrainedTokenizerBase,
    most: int,
) -> Features:
    """Windows of `most` tokens, with the places of answers and of their tokens."""
    encoded = tokenizer(
        [question["question"].lstrip() for question in questions],
        [question["context"] for question in questions],
        truncation="only_second",
        max_length=most,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    features = []
    for i, number in enumerate(encoded["overflow_to_sample_mapping"]):
        # Characters of the context that each token covers; none of the others.
        offsets = [
            pair if kind == 1 else None
            for pair, kind in zip(
                encoded["offset_mapping"][i], encoded.sequence_ids(i), strict=True
            )
        ]
        answer = questions[number]["answers"][0]
        first, last = answer_place(offsets, answer["answer_start"], answer["text"])
        features.append(
            {name: encoded[name][i] for name in INPUTS}
            | {"start_positions": first, "end_positions": last}
            | {"offsets": offsets, "question": number}
        )
    return features


def answer_place(
    offsets: list[tuple[int, int] | None], start: int, text: str
) -> tuple[int, int]:
    """First and last token of an answer; 0, 0 if the window does not hold all of it."""
    end = start + len(text)
    tokens = [i for i, pair in enumerate(offsets) if pair]
    if offsets[tokens[0]][0] > start or offsets[tokens[-1]][1] < end:
        return 0, 0
    first = max(i for i in tokens if offsets[i][0] <= start)
    last = min(i for i in tokens if offsets[i][1] >= end)
    return first, last


def length(feature: dict[str, Any]) -> int:
    """Tokens of a feature, of its longest sequence if it has several."""
    ids = feature["input_ids"]
    return max(map(len, ids)) if isinstance(ids[0], list) else len(ids)


def filled(values: Any, longest: int, padding: int = 0) -> Any:  # noqa: ANN401
    """A list as long as asked, or a list of such lists; anything else as it is."""
    if not isinstance(values, list):
        return values
    if isinstance(values[0], list):
        return [filled(each, longest, padding) for each in values]
    return values + [padding] * (longest - len(values))


def padded(features: Features, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Tensors about as long as the longest of the features; -100 behind tags."""
    longest = -(-max(map(length, features)) // MULTIPLE) * MULTIPLE
    rows = {name: [filled(f[name], longest) for f in features] for name in INPUTS}
    rows |= {name: [filled(f[name], longest, -100) for f in features] for name in names}
    return {name: torch.as_tensor(np.array(values)) for name, values in rows.items()}


def by_length(features: Features) -> Features:
    """The shortest first."""
    return sorted(features, key=length)


def weight(features: Features) -> int:
    """What the mean of their losses is over: words with a tag, or examples."""
    labels = [feature.get("labels") for feature in features]
    if isinstance(labels[0], list):
        return sum(label >= 0 for each in labels for label in each)
    return len(features)


def batches(features: Features, work: dict[str, Any]) -> Iterator[Features]:
    """The batches of all epochs, each epoch in an order of its own."""
    generator = torch.Generator().manual_seed(work["seed"])
    order: list[int] = []
    for _ in range(work["epochs"]):
        order += torch.randperm(len(features), generator=generator).tolist()
    size = work["batch_size"]
    for first in range(0, len(order) - size + 1, size):
        yield [features[i] for i in order[first : first + size]]


def make_optimizer(
    model: torch.nn.Module, work: dict[str, Any], num_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, without decay of biases and of LayerNorm, and its schedule."""
    groups = [
        {"params": [], "weight_decay": decay} for decay in (work["weight_decay"], 0.0)
    ]
    for name, parameter in model.named_parameters():
        is_free = "LayerNorm" in name or name.endswith("bias")
        groups[is_free]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, work["learning_rate"], eps=work["epsilon"])
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, int(num_steps * work["warmup"]), num_steps
    )
    return optimizer, schedule


def train(
    model: torch.nn.Module,
    features: Features,
    labels: tuple[str, ...],
    work: dict[str, Any],
) -> None:
    """Takes all steps."""
    num_steps = len(features) * work["epochs"] // work["batch_size"]
    optimizer, schedule = make_optimizer(model, work, num_steps)
    model.train()
    for step, batch in enumerate(batches(features, work), 1):
        batch = by_length(batch)
        size = -(-len(batch) // PARTS)
        for first in range(0, len(batch), size):
            part = batch[first : first + size]
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**padded(part, labels)).loss
            (loss * (weight(part) / weight(batch))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), work["max_grad_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == num_steps:
            print(f"step {step}/{num_steps} loss {loss.item():.4f}", flush=True)


def predict(
    model: torch.nn.Module, features: Features, names: tuple[str, ...]
) -> list[list[torch.Tensor]]:
    """The outputs of these names for each of the features, float32."""
    model.eval()
    results: list[list[torch.Tensor]] = [[] for _ in features]
    order = sorted(range(len(features)), key=lambda i: length(features[i]))
    for first in range(0, len(order), 32):
        numbers = order[first : first + 32]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            outputs = model(**padded([features[i] for i in numbers], ()))
        for row, i in enumerate(numbers):
            results[i] = [outputs[name][row].float() for name in names]
    return results


def candidates(
    feature: dict[str, Any], starts: torch.Tensor, ends: torch.Tensor
) -> Iterator[tuple[float, int, int]]:
    """Scores and characters of possible answers of a window."""
    offsets = feature["offsets"]
    count = min(NUM_BEST, len(offsets))
    # Padding is behind the tokens.
    best = [
        scores[: len(offsets)].topk(count).indices.tolist() for scores in (starts, ends)
    ]
    for first in best[0]:
        for last in best[1]:
            is_short = 0 <= last - first < MAX_ANSWER_TOKENS
            if is_short and offsets[first] and offsets[last]:
                score = float(starts[first]) + float(ends[last])
                yield score, offsets[first][0], offsets[last][1]


def answers(
    questions: list[dict[str, Any]], features: Features, logits: list
) -> dict[str, str]:
    """The best answer to each question over its windows."""
    best: dict[int, tuple[float, str]] = {}
    for feature, (starts, ends) in zip(features, logits, strict=True):
        number = feature["question"]
        context = questions[number]["context"]
        for score, begin, end in candidates(feature, starts, ends):
            if number not in best or score > best[number][0]:
                best[number] = score, context[begin:end]
    return {
        question["id"]: best[i][1] if i in best else ""
        for i, question in enumerate(questions)
    }


def prepare(work: dict[str, Any], tokenizer: Any) -> tuple[type, dict, list, list]:  # noqa: ANN401
    """The model's class, its settings, its classes, and rows and features of files."""
    task, most, settings = work["task"], work["max_seq_length"], {}
    read = {"squad": read_squad, "tags": read_tags}.get(task, read_lines)
    files = [read(work[name]) for name in ("train_file", "dev_file")]
    names: list[str] = []
    if task in ("tags", "labels"):
        names = sorted({name for file in files for row in file for name in row[task]})
        settings["num_labels"] = len(names)
    if task == "labels":
        settings["problem_type"] = "multi_label_classification"
    kind, encode = {
        "boolq": (BertForSequenceClassification, boolq_features),
        "squad": (BertForQuestionAnswering, squad_features),
        "tags": (BertForTokenClassification, tag_features),
        "labels": (BertForSequenceClassification, label_features),
        "choices": (BertForMultipleChoice, choice_features),
    }[task]
    more = (names,) if names else ()
    splits = [(file, encode(file, tokenizer, most, *more)) for file in files]
    return kind, settings, names, splits


def results(
    task: str, rows: list, features: Features, logits: list, names: list
) -> Any:  # noqa: ANN401
    """What is predicted, in the form in which `quality.py` reads it."""
    if task == "squad":
        return answers(rows, features, logits)
    if task == "labels":
        return [(scores > 0).int().tolist() for (scores,) in logits]
    if task in ("boolq", "choices"):
        return [int(scores.argmax()) for (scores,) in logits]
    return [
        [
            names[int(scores[i].argmax())]
            for i, label in enumerate(feature["labels"])
            if label >= 0
        ]
        for feature, (scores,) in zip(features, logits, strict=True)
    ]


def run(work: dict[str, Any]) -> None:
    """Trains and predicts, and writes what is predicted."""
    torch.set_num_threads(work["threads"])
    torch.manual_seed(work["seed"])
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(work["weights"])
    kind, settings, names, files = prepare(work, tokenizer)
    # With dropout of the scores, plain attention is faster on CPUs than "sdpa".
    model = kind.from_pretrained(
        work["weights"], dtype=torch.float32, attn_implementation="eager", **settings
    )
    (_, train_set), (rows, features) = files
    print(f"{len(train_set)} features to train on", flush=True)
    is_squad = work["task"] == "squad"
    places = ("start_positions", "end_positions") if is_squad else ("labels",)
    train(model, train_set, places, work)
    outputs = ("start_logits", "end_logits") if is_squad else ("logits",)
    logits = predict(model, features, outputs)
    found = results(work["task"], rows, features, logits, names)
    pathlib.Path(work["output_file"]).write_text(json.dumps(found))


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
