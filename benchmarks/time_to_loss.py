"""Time from raw text to a masked-LM loss: ours and transformers in its best form.

    python benchmarks/time_to_loss.py --model tiny --minutes 30 --our_minutes 15

Both read the same text and vocabulary, mask 15% of the tokens of sequences of at most
128, and are evaluated on the same masked sequences of held-out documents. The clock
starts with the raw text: preparation, start-up, compilation and evaluations count. The
learning rate of both falls to zero at the end of their time. transformers' loss at the
end is the target, if it is at least 0.5 nat below the entropy of the words; what counts
is when ours reaches it. Neither learns the next sentence. The environment of the other
side is that of `make bench`.

The recipe of the other side is that of its users. Ours differs in two ways, and options
give them to the other side too: as in BERT's own recipe, `--short_share` of the time
goes to shorter sequences first (`--their_short_share`), with a learning rate that rises
and falls in each part; and it has no dropout (`--dropout`, `--their_dropout`).
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

from speed import OTHERS, TUNED

ROOT = pathlib.Path(__file__).parents[1]
PEER = pathlib.Path(__file__).parent / "peers/with_transformers_time_to_loss.py"
VOCABULARY = ROOT / ".data/vocab.txt"
LENGTH, PREDICTIONS = 128, 20
SHORT_LENGTH, SHORT_PREDICTIONS = 32, 5
HELD_OUT = 20  # Every so many documents one is held out.
EVALUATED = 512  # Sequences.
MARGIN = 0.5  # Nats below the entropy of the words.
BATCH = 32  # Sequences, or packed records; as many tokens of short ones.
RATES = {"tiny": 2e-3, "small": 7e-4, "base": 3e-4}  # Peaks of AdamW.
EVAL_STEPS = {"tiny": 1000, "small": 100, "base": 20}  # Between our evaluations.
WARMUP = 0.1

Curve = list[dict[str, float]]


def write_text(folder: pathlib.Path) -> None:
    """The raw text as JSON lines: the title and the paragraphs of each document."""
    documents = [
        (path.stem, path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / ".data/text/sotu").glob("*.txt"))
    ]
    summaries = ROOT / ".data/text/wikipedia/summaries_en-us.json"
    entries = json.loads(summaries.read_text(encoding="utf-8"))
    documents += [(entry["title"], entry["extract"]) for entry in entries.values()]
    with (
        (folder / "train.jsonl").open("w") as train,
        (folder / "held_out.jsonl").open("w") as held_out,
    ):
        for number, (title, text) in enumerate(documents):
            paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text)]
            line = {"title": title, "text": "\n".join(filter(None, paragraphs))}
            file = held_out if number % HELD_OUT == 0 else train
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def run(command: list[Any]) -> None:
    """A command of ours; its output only if it fails."""
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True
    )
    if result.returncode:
        sys.exit(f"{command}\n{result.stdout[-3000:]}{result.stderr[-3000:]}")


def data(command: str, *flags: str) -> None:
    """A command of the data preparation."""
    run(["-m", "bert_tf", "data", command, *flags])


def create(
    text: pathlib.Path,
    folder: pathlib.Path,
    dupe_factor: int,
    length: int = LENGTH,
    predictions: int = PREDICTIONS,
) -> None:
    """Sentences and records of masked pairs from text."""
    sentences, records = folder / "sentences", folder / "records"
    data("sentences", f"--input={text}", f"--output_dir={sentences}")
    data(
        "create",
        *(f"--input={sentences}", f"--output_dir={records}"),
        *(f"--vocab_file={VOCABULARY}", f"--max_seq_length={length}"),
        *(f"--max_predictions_per_seq={predictions}", f"--dupe_factor={dupe_factor}"),
        "--num_shards=4",
    )


def write_evaluation(folder: pathlib.Path) -> dict[str, Any]:
    """Writes the held-out sequences; the loss that word frequencies alone have."""
    import numpy as np

    from bert_tf.data.records.record_set import open_records
    from bert_tf.data.records.schema import ValueLimits
    from bert_tf.data.text.tokenization import WordPieceTokenizer

    create(folder / "held_out.jsonl", folder / "held_out", 1)
    limits = ValueLimits(len(VOCABULARY.read_text().splitlines()), 2)
    records = open_records(str(folder / "held_out/records"), limits)
    features = records.parser(np.arange(min(EVALUATED, len(records))))
    np.savez(folder / "held_out.npz", **features)
    tokenizer = WordPieceTokenizer(str(VOCABULARY))
    counts = np.ones(limits.vocab_size)
    for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines():
        for ids in tokenizer.encode(json.loads(line)["text"].split("\n")):
            np.add.at(counts, ids, 1)
    labels = features["masked_lm_ids"][features["masked_lm_weights"] > 0]
    logs = np.log(counts / counts.sum())
    return {
        "entropy": float(-logs[labels].mean()),
        "training_tokens": int(counts.sum() - limits.vocab_size),
        "held_out_sequences": len(features["input_ids"]),
        "held_out_masked": len(labels),
    }


def rate_of(options: argparse.Namespace) -> float:
    """The peak learning rate of both."""
    return options.learning_rate or RATES[options.model]


def write_architecture(path: pathlib.Path, options: argparse.Namespace) -> None:
    """The preset, with our rate of dropout."""
    from bert_tf.config import PRESETS

    values = PRESETS[options.model].to_dict()
    values["hidden_dropout_prob"] = options.dropout
    values["attention_probs_dropout_prob"] = options.dropout
    path.write_text(json.dumps(values))


def run_ours(
    folder: pathlib.Path, minutes: float, options: argparse.Namespace
) -> tuple[Curve, float]:
    """Our commands: create, pack and train; the curve, and seconds of preparation."""
    start = time.time()
    lengths = {"full": (LENGTH, PREDICTIONS)}
    if options.short_share:
        lengths = {"short": (SHORT_LENGTH, SHORT_PREDICTIONS)} | lengths
    dupes = {"short": 1, "full": options.dupe_factor}
    for name, numbers in lengths.items():
        create(folder / "train.jsonl", folder / name, dupes[name], *numbers)
        records, packed = folder / name / "records", folder / name / "packed"
        data("pack", f"--input_dir={records}", f"--output_dir={packed}")
    architecture = folder / "bert_config.json"
    write_architecture(architecture, options)
    prepared = time.time() - start
    shares = {"short": options.short_share, "full": 1.0}
    curve: Curve = []
    first_step, checkpoint = 0, []
    for name, (length, _) in lengths.items():
        left = 60 * minutes - (time.time() - start)
        seconds = max(shares[name] * left - options.startup_seconds, 1.0)
        output = folder / f"run_{name}"
        run(
            [
                *("run_pretraining.py", f"--bert_config_file={architecture}"),
                *(f"--input_files_dir={folder / name / 'packed'}", "--do_train"),
                *(f"--eval_files_dir={folder / 'held_out/records'}", "--do_eval"),
                *("--eval_batch_size=32", f"--max_eval_steps={EVALUATED // 32}"),
                f"--eval_steps={EVAL_STEPS[options.model]}",
                *(f"--output_dir={output}", f"--vocab_file={VOCABULARY}"),
                *("--optimizer_type=adamw", f"--learning_rate={rate_of(options)}"),
                *("--epsilon=1e-8", "--nodo_nsp", "--dynamic_masking"),
                f"--train_batch_size={BATCH * LENGTH // length}",
                *("--num_accumulation_steps=1", f"--max_hours={seconds / 3600}"),
                *("--num_train_steps=1000000", "--save_checkpoints_steps=1000000"),
                *(f"--num_warmup_steps={int(1e6 * WARMUP)}", f"--seed={options.seed}"),
                *("--display_loss_steps=1000", "--precision=bf16"),
                *checkpoint,
            ]
        )
        curve += read_curve(output, start, first_step)
        first_step = int(curve[-1]["step"])
        checkpoint = [f"--init_checkpoint={output}"]
    return curve, prepared


def read_curve(output: pathlib.Path, start: float, first_step: int) -> Curve:
    """The evaluations of a run: seconds since the start, steps and losses."""
    curve = []
    for line in (output / "bert_dllog.json").read_text().splitlines():
        entry = json.loads(line.removeprefix("DLLL "))
        values = entry.get("data", {})
        if "masked_lm_accuracy" in values and isinstance(entry["step"], int):
            seconds = float(entry["timestamp"]) - start
            step, loss = first_step + entry["step"], values["masked_lm_loss"]
            curve.append({"seconds": seconds, "step": step, "loss": loss})
    return curve


def run_theirs(
    folder: pathlib.Path, minutes: float, options: argparse.Namespace
) -> tuple[Curve, float]:
    """transformers; the curve, and seconds of preparation."""
    work = {
        "model": options.model,
        "text": str(folder / "train.jsonl"),
        "held_out": str(folder / "held_out.npz"),
        "vocabulary": str(VOCABULARY),
        "seconds": 60 * minutes,
        "start": time.time(),
        "batch": BATCH,
        "short_share": options.their_short_share,
        "short_length": SHORT_LENGTH,
        "dropout": options.their_dropout,
        "rate": rate_of(options),
        "warmup": WARMUP,
        "evaluations": options.evaluations,
        "seed": options.seed,
        "threads": len(os.sched_getaffinity(0)),
        "compile": options.compile,
        "output": str(folder / "theirs.json"),
    }
    subprocess.run([OTHERS, PEER, json.dumps(work)], check=True, env=os.environ | TUNED)
    result = json.loads((folder / "theirs.json").read_text())
    return result["curve"], result["prepared_seconds"]


def when(curve: Curve, loss: float) -> float | None:
    """Seconds to the first evaluation with at most this loss; None: never."""
    return next((point["seconds"] for point in curve if point["loss"] <= loss), None)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny", choices=sorted(RATES))
    parser.add_argument("--minutes", type=float, default=30.0, help="of transformers")
    parser.add_argument("--our_minutes", type=float, default=0.0, help="default: half")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--dupe_factor", type=int, default=1, help="of our records, not of short ones"
    )
    parser.add_argument("--short_share", type=float, default=0.35)
    parser.add_argument("--their_short_share", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.0, help="of ours")
    parser.add_argument("--their_dropout", type=float, default=0.1)
    parser.add_argument("--learning_rate", type=float, default=0.0, help="of both")
    parser.add_argument("--evaluations", type=int, default=12, help="of transformers")
    parser.add_argument("--startup_seconds", type=float, default=8.0, help="of ours")
    parser.add_argument("--compile", default="default", help="mode; empty: none")
    parser.add_argument("--systems", nargs="+", default=["theirs", "ours"])
    parser.add_argument("--target", type=float, help="default: what theirs reaches")
    parser.add_argument("--work_dir", default="results/time_to_loss")
    parser.add_argument("--output", default="", help="default: in work_dir")
    return parser.parse_args()


def main() -> None:
    """Runs one after the other, and writes both curves as JSON."""
    options = parse()
    folder = pathlib.Path(options.work_dir, f"{options.model}-{options.seed}").resolve()
    if folder.exists():
        sys.exit(f"error: {folder} exists. Delete it, or pass another --work_dir.")
    folder.mkdir(parents=True)
    write_text(folder)
    print("Held-out records", flush=True)
    result: dict[str, Any] = {"options": vars(options)}
    result |= write_evaluation(folder)
    goal = result["entropy"] - MARGIN
    print(f"Entropy of the words {result['entropy']:.3f}; goal {goal:.3f} or less")
    systems = {
        "theirs": (run_theirs, options.minutes),
        "ours": (run_ours, options.our_minutes or options.minutes / 2),
    }
    path = pathlib.Path(options.output or folder / "curves.json")
    for name in options.systems:
        function, minutes = systems[name]
        print(
            f"{name}: {minutes:g} minutes from {time.strftime('%H:%M:%S')}", flush=True
        )
        curve, prepared = function(folder, minutes, options)
        result[name] = {"prepared_seconds": prepared, "curve": curve}
        for point in curve:
            seconds, step, loss = point["seconds"], point["step"], point["loss"]
            print(f"  {seconds:7.1f} s  step {step}  {loss:.4f}")
        path.write_text(json.dumps(result, indent=2) + "\n")
    target = options.target
    if target is None and "theirs" in result:
        target = min(point["loss"] for point in result["theirs"]["curve"])
    if target is None:
        return
    result["target"] = target
    result["is_below_entropy"] = target <= goal
    for name in options.systems:
        result[name]["seconds_to_target"] = when(result[name]["curve"], target)
    path.write_text(json.dumps(result, indent=2) + "\n")
    remark = "" if target <= goal else f", which is not {MARGIN} below the entropy"
    print(f"Target {target:.4f}{remark}; seconds to it:")
    for name in options.systems:
        seconds = result[name]["seconds_to_target"]
        print(f"  {name}: {'not reached' if seconds is None else f'{seconds:.0f}'}")


if __name__ == "__main__":
    main()
