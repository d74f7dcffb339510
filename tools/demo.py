"""Pre-trains a tiny BERT on real text, on one process, then on two; prints a table.

Run by `make demo`. It prints each command that it runs, for users to type. The records
of an earlier demo are used again; the training starts from step 0.
"""

import importlib.util
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).parents[1]
DATA = pathlib.Path(".data")
WORK = DATA / "demo"
# See demo.toml. Test records are not packed: each is one sequence.
TRAINING = WORK / "pack" / "training"
TEST = WORK / "create" / "test"
RUN = pathlib.Path("results") / "demo"

# The recipe. Rate 0.007 with 16 sequences per step is in the flat part of the optimum:
# 0.012 is a little worse after 900 steps (13.9% against 14.2% masked-LM accuracy), 0.03
# does not leave the plateau of unigram entropy. A small batch gives more steps in the
# few minutes; a tenth of them is warm-up.
STEPS_ON_ONE, STEPS_IN_ALL = 500, 750
RATE = 0.007
BATCH_SIZE = 16
EVALUATION = ["--eval_batch_size=32", "--max_eval_steps=63"]


def execute(command: list[str]) -> str:
    """Prints and runs a command; its output is shown and returned.

    Raises:
      SystemExit: if it fails.
    """
    shown = [part.replace(sys.executable, "python") for part in command]
    print(f"\n$ {shlex.join(shown)}", flush=True)
    lines = []
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    for line in process.stdout:
        print(f"  {line}", end="", flush=True)
        lines.append(line)
    if process.wait():
        sys.exit(f"error: the command above failed with exit code {process.returncode}")
    return "".join(lines)


def make_records() -> None:
    """Makes packed training records and test records from real text."""
    execute([sys.executable, "-m", "bert_tf", "data", "all", "--config=demo.toml"])


def training_command(batch_size: int, rate: float) -> list[str]:
    """The flags that both parts of the training share."""
    return [
        "run_pretraining.py",
        "--preset=tiny",
        "--vocab_file=.data/vocab.txt",
        f"--input_files_dir={TRAINING}",
        f"--output_dir={RUN}",
        "--do_train",
        "--optimizer_type=lamb",
        f"--train_batch_size={batch_size}",
        f"--learning_rate={rate}",
        f"--num_train_steps={STEPS_IN_ALL}",
        "--keep_checkpoint_max=3",
        "--save_checkpoints_steps=250",
        "--display_loss_steps=100",
    ]


def evaluation_command(checkpoint: str, name: str) -> list[str]:
    """The command that evaluates a checkpoint into a separate folder."""
    return [
        sys.executable,
        "run_pretraining.py",
        "--preset=tiny",
        f"--eval_files_dir={TEST}",
        f"--output_dir={RUN}/{name}",
        f"--init_checkpoint={RUN}/{checkpoint}",
        "--do_eval",
        *EVALUATION,
    ]


def read_results(name: str) -> dict[str, float]:
    """The numbers of an eval_results.txt."""
    lines = (ROOT / RUN / name / "eval_results.txt").read_text().splitlines()
    pairs = (line.split(" = ") for line in lines)
    return {key: float(value) for key, value in pairs}


def best_constants() -> dict[str, float]:
    """Losses and accuracies of the best constant guesses on the evaluated records."""
    import numpy as np

    from bert_tf.config import PRESETS
    from bert_tf.data.batches.record_order import RecordOrder
    from bert_tf.data.records.record_set import open_records
    from bert_tf.data.records.schema import ValueLimits
    from bert_tf.jobs.pretraining import EVALUATION_SEED

    limits = ValueLimits(PRESETS["tiny"].vocab_size, 2)
    records = open_records(str(ROOT / TEST), limits)
    order = RecordOrder(num_records=len(records), seed=EVALUATION_SEED)
    features = records.parser(order.records(0, min(len(records), 32 * 63)))
    is_real = features["masked_lm_weights"] > 0
    found = {}
    for name, labels in (
        ("masked_lm", features["masked_lm_ids"][is_real]),
        ("next_sentence", features["next_sentence_labels"][:, 0]),
    ):
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        # Of all constant distributions, this one has the smallest cross entropy.
        found[f"{name}_loss"] = float(-(shares * np.log(shares)).sum())
        found[f"{name}_accuracy"] = float(shares.max())
    return found


def speed(output: str) -> str:
    """Sequences per second as the run printed it."""
    lines = [line for line in output.splitlines() if "Training throughput" in line]
    return lines[-1].split(": ")[1].rstrip(".") if lines else "unknown"


def packing() -> str:
    """What packing saves, from the metadata of the records."""
    from bert_tf.data.records.metadata import read_metadata

    found = read_metadata(ROOT / TRAINING)
    before = found.padding_tokens_original_dataset
    share = before / (found.original_number_of_samples * found.max_seq_length)
    return (
        f"{found.original_number_of_samples:,} sequences in "
        f"{found.new_number_of_samples:,} records, {share:.1%} padding before, "
        f"{1 - found.packing_efficiency:.1%} after, "
        f"{found.avg_seq_per_sample:.2f} times fewer records to compute"
    )


def print_table(speeds: dict[str, str], seconds: float) -> None:
    """Prints the metrics before and after the training, and the speeds."""
    before, after = read_results("before"), read_results("after")
    constant = best_constants()
    gain = after["masked_lm_accuracy"] - constant["masked_lm_accuracy"]
    rows = [
        ("masked-LM loss", "masked_lm_loss", "{:.3f}"),
        ("masked-LM accuracy", "masked_lm_accuracy", "{:.2%}"),
        ("next-sentence loss", "next_sentence_loss", "{:.3f}"),
        ("next-sentence accuracy", "next_sentence_accuracy", "{:.2%}"),
    ]
    print(f"\n{'on test records':24}{'step 1':>10}{'after':>10}{'best constant':>16}")
    for title, key, form in rows:
        values = [form.format(found[key]) for found in (before, after, constant)]
        print("{:24}{:>10}{:>10}{:>16}".format(title, *values))
    count = int(after["masked_lm_count"])
    print(f"\n{count:,} masked tokens; {gain:+.2%} over the most frequent one.")
    print(
        "Best constant: the frequencies of the labels for a loss (their entropy, in "
        "nats), for an accuracy the most frequent token or the larger class."
    )
    for name, value in speeds.items():
        print(f"Training on {name}: {value}")
    print(f"Packing: {packing()}")
    print(f"Records: {TRAINING}/  checkpoints and logs: {RUN}/")
    print(f"The demo took {seconds:.0f} s.")


def main() -> None:
    """Data, training on one and two processes, evaluation, table."""
    started = time.perf_counter()
    make_records()
    shutil.rmtree(ROOT / RUN, ignore_errors=True)
    on_one = [sys.executable, *training_command(BATCH_SIZE, RATE)]
    # The first step of the warm-up changes little: its weights are those before.
    execute([*on_one, "--steps_this_run=1"])
    execute(evaluation_command("model.ckpt-1", "before"))
    left = STEPS_ON_ONE - 1
    speeds = {"one process": speed(execute([*on_one, f"--steps_this_run={left}"]))}
    tools = str(pathlib.Path(sys.executable).parent)
    mpirun = shutil.which("mpirun", path=os.pathsep.join([tools, os.environ["PATH"]]))
    if mpirun and importlib.util.find_spec("horovod"):
        launcher = [mpirun, "--allow-run-as-root", "--oversubscribe", "-np", "2"]
        on_two = training_command(BATCH_SIZE // 2, RATE / 2)
        output = execute([*launcher, sys.executable, *on_two, "--horovod"])
        speeds["two processes"] = speed(output)
    else:
        print("\nWithout mpirun and Horovod, the run continues on one process.")
        execute(on_one)
    execute(evaluation_command(f"model.ckpt-{STEPS_IN_ALL}", "after"))
    print_table(speeds, time.perf_counter() - started)


if __name__ == "__main__":
    main()
