"""Text to records: ours against tf-models-official's create_pretraining_data.py.

    python benchmarks/data_preparation.py --output results/data_preparation.json

Both read the same file of real text in google's format with the same settings, each as
a whole command on one process, in turns; the median of the rounds' ratios counts. A
second, tiny text gives the time that each command needs to start: with it taken off,
the comparison is of the work alone.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from bert_tf.data.text.documents import cut_into_ranges, read_ranges
from bert_tf.data.text.input_files import expand_paths

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
    "vocab_file": str(ROOT / ".data" / "vocab.txt"),
    "max_seq_length": 128,
    "max_predictions_per_seq": 20,
    "masked_lm_prob": 0.15,
    "short_seq_prob": 0.1,
    "random_seed": 12345,
}


def write_text(path: pathlib.Path, max_bytes: int) -> int:
    """Writes speeches again and again up to a size; returns the sentences."""
    paths = expand_paths(str(ROOT / ".data" / "text" / "sotu"))
    speeches = list(read_ranges(cut_into_ranges(paths, "text", 0), "text"))
    size = sentences = number = 0
    with path.open("w", encoding="utf-8") as file:
        while size < max_bytes:
            document = speeches[number % len(speeches)]
            size += file.write("\n".join(document) + "\n\n")
            sentences += len(document)
            number += 1
    return sentences


def seconds_of(command: list[str]) -> float:
    """Runs a command on one core, in one thread, and times it."""
    core = min(os.sched_getaffinity(0))
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", OMP_NUM_THREADS="1")
    begin = time.perf_counter()
    result = subprocess.run(
        ["taskset", "-c", str(core), *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=7200,
    )
    if result.returncode:
        sys.exit(result.stderr[-3000:])
    return time.perf_counter() - begin


def our_command(text: pathlib.Path, work: pathlib.Path, dupe_factor: int) -> list[str]:
    """`data create` on one process."""
    options = {key: value for key, value in SETTINGS.items() if key != "random_seed"}
    options |= {"input": text, "output_dir": work / "ours", "dupe_factor": dupe_factor}
    options |= {"seed": SETTINGS["random_seed"], "num_processes": 1}
    command = [sys.executable, "-m", "bert_tf", "data", "create", "--overwrite"]
    (work / "ours_manifest.json").unlink(missing_ok=True)  # It must not be skipped.
    return command + [f"--{name}={value}" for name, value in options.items()]


def their_command(
    text: pathlib.Path, work: pathlib.Path, dupe_factor: int
) -> list[str]:
    """The script of tf-models-official."""
    [folder] = importlib.util.find_spec("official").submodule_search_locations
    script = pathlib.Path(folder, "nlp", "data", "create_pretraining_data.py")
    options = SETTINGS | {"input_file": text, "output_file": work / "theirs.tfrecord"}
    options |= {"dupe_factor": dupe_factor, "do_lower_case": True}
    return [sys.executable, str(script)] + [
        f"--{name}={value}" for name, value in options.items()
    ]


def compare(options: argparse.Namespace) -> dict[str, object]:
    """Runs both in turns."""
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        sentences = write_text(work / "text.txt", options.megabytes << 20)
        write_text(work / "tiny.txt", 100_000)
        for number in range(options.rounds):
            seconds = {
                f"{who}_{what}": seconds_of(
                    command(work / f"{what}.txt", work, options.dupe_factor)
                )
                for what in ("text", "tiny")
                for who, command in (("ours", our_command), ("theirs", their_command))
            }
            ours = seconds["ours_text"] - seconds["ours_tiny"]
            theirs = seconds["theirs_text"] - seconds["theirs_tiny"]
            rounds.append(
                seconds
                | {
                    "ratio": seconds["theirs_text"] / seconds["ours_text"],
                    "ratio_of_the_work": theirs / ours,
                }
            )
            print(
                f"round {number + 1}: ours {sentences / seconds['ours_text']:,.0f}, "
                f"tf-models {sentences / seconds['theirs_text']:,.0f} sentences/s, "
                f"ratio {rounds[-1]['ratio']:.2f}, without starting "
                f"{rounds[-1]['ratio_of_the_work']:.2f}",
                flush=True,
            )
    return {
        "sentences": sentences,
        "dupe_factor": options.dupe_factor,
        "rounds": rounds,
        "ratio": statistics.median(r["ratio"] for r in rounds),
        "ratio_of_the_work": statistics.median(r["ratio_of_the_work"] for r in rounds),
    }


def measure_memory(gigabytes: float) -> dict[str, float]:
    """Records from a large text: the most memory that a process of the job takes."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        sentences = write_text(work / "text.txt", int(gigabytes * 2**30))
        command = our_command(work / "text.txt", work, 1)
        command = [part for part in command if not part.startswith("--num_processes")]
        peak, seconds = peak_memory([*command, "--num_processes=2", "--num_shards=8"])
    return {
        "gigabytes": gigabytes,
        "peak_mib": peak,
        "seconds": seconds,
        "sentences_per_second": sentences / seconds,
    }


def peak_memory(command: list[str]) -> tuple[float, float]:
    """Runs a command; the largest sum of its processes' memory in MiB, and seconds."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident_pages(process.pid))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"the command ended with code {process.returncode}")
    return peak * resource.getpagesize() / 2**20, time.perf_counter() - begin


def _resident_pages(session: int) -> int:
    """Resident memory of all processes of a session; shared pages count in each."""
    pages = 0
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if int(status[3]) == session:
                    pages += int(status[21])
            except (OSError, IndexError):
                continue
    return pages


def main() -> None:
    """Prints the rounds, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=4)
    parser.add_argument("--dupe_factor", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--memory_gigabytes", type=float, default=0.0, help="0 leaves the memory out"
    )
    parser.add_argument("--output", default="", help="a JSON file")
    options = parser.parse_args()
    results = {"speed": compare(options)} if options.rounds else {}
    if options.rounds:
        speed = results["speed"]
        print(
            f"ours / tf-models: {speed['ratio']:.2f} (whole commands), "
            f"{speed['ratio_of_the_work']:.2f} (without starting)"
        )
    if options.memory_gigabytes:
        results["memory"] = measure_memory(options.memory_gigabytes)
        print(json.dumps(results["memory"], indent=2))
    if options.output:
        path = pathlib.Path(options.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
