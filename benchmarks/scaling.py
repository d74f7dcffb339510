"""Plans of 8 workers, fitted on 1, 2 and 4, against 8 workers: all on this machine.

    python benchmarks/scaling.py --output results/scaling.json

For gradients of tiny to base: one allreduce alone (aim: within 15%, the median
of the rounds' predictions against the median of what was measured), and whole steps of
tiny and small (25%; `--trained` without a name: none). Needs 16 GB of free memory, and
a machine that does nothing else.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bert_tf.cli.measurement import STEPS, run_workers
from bert_tf.config import PRESETS
from bert_tf.config.planning import PlanConfig
from bert_tf.resources import available_cores
from bert_tf.scaling import (
    Cluster,
    Device,
    Point,
    fit_allreduce,
    fit_step,
    num_gradients,
    step_time,
)

TRAINED = ("tiny", "small")
WORKERS = 8
AIMS = {"allreduce": 0.15, "step": 0.25}


def measure(workers: int, options: argparse.Namespace, preset: str) -> dict:
    """Allreduces, in the run of the first preset, and steps of a preset."""
    config = PlanConfig(
        preset=preset,
        train_batch_size=options.batch,
        precision=options.precision,
        measure_seconds=options.seconds,
        throughput=1.0,
    )
    sums = options.sums if preset == TRAINED[0] and workers > 1 else ()
    is_stepping = preset in options.trained and workers in (1, WORKERS)
    work = {
        "allreduces": [dataclasses.asdict(PRESETS[name]) for name in sums],
        "steps": STEPS if is_stepping else (),
    }
    return run_workers(workers, config, PRESETS[preset], work)


def round_of(options: argparse.Namespace) -> dict[str, list[float]]:
    """Predicted and measured seconds by name."""
    points, found, steps = [], {}, {}
    for workers in (2, 4, WORKERS):
        sums = measure(workers, options, TRAINED[0])
        if workers == WORKERS:
            steps[TRAINED[0]] = sums["steps"]
        points += [
            Point(workers, each["bytes"], each["seconds"])
            for each in sums["allreduces"]
        ]
    cores = available_cores()
    fitted = fit_allreduce([p for p in points if p.workers < WORKERS], cores)
    cluster: Cluster = dataclasses.replace(fitted, workers_per_host=WORKERS)
    print(cluster)
    for name in options.sums:
        size = 4 * num_gradients(PRESETS[name])
        [measured] = [p for p in points if (p.workers, p.num_bytes) == (WORKERS, size)]
        predicted = cluster.allreduce_seconds(size, WORKERS)
        found[f"allreduce {name}"] = [predicted, measured.seconds]
    for name in options.trained:
        lone = measure(1, options, name)["steps"]
        counts = [step["micro_batches"] for step in lone]
        micro, update = fit_step(counts, [step["seconds"] for step in lone])
        device = Device(seconds_per_sequence=micro, update_seconds=update)
        size = 4 * num_gradients(PRESETS[name])
        for each in steps.get(name) or measure(WORKERS, options, name)["steps"]:
            count = each["micro_batches"]
            predicted = step_time(device, cluster, WORKERS, count, size).total
            found[f"step {name} x {count}"] = [predicted, each["seconds"]]
    return found


def main() -> int:
    """Prints each round, and writes JSON; 1 if a median is not within its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    presets = ("tiny", "mini", "small", "base")
    parser.add_argument("--sums", nargs="+", choices=presets, default=presets)
    parser.add_argument("--trained", nargs="*", choices=TRAINED, default=TRAINED)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--output", default="results/scaling.json")
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        rounds.append(round_of(options))
        for name, (predicted, measured) in rounds[-1].items():
            error = predicted / measured - 1
            print(f"{name}: {predicted:.3f} s, measured {measured:.3f}: {error:+.0%}")
    path = pathlib.Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounds, indent=2) + "\n")
    is_good = True
    for name in rounds[0]:
        columns = zip(*(each[name] for each in rounds), strict=True)
        predicted, measured = map(statistics.median, columns)
        error, aim = predicted / measured - 1, AIMS[name.split()[0]]
        is_good &= abs(error) <= aim
        print(f"median of {name}: {error:+.1%}, aim {aim:.0%}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
