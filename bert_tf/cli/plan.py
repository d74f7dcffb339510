"""`python -m bert_tf plan ...`: how long a pre-training takes on many workers."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from bert_tf import resources
from bert_tf.cli.arguments import parse_config
from bert_tf.cli.measurement import (
    Measured,
    conditions_of,
    measure,
    read_link_file,
)
from bert_tf.config.model import BertConfig
from bert_tf.config.options import options_of
from bert_tf.config.paths import require_output_file
from bert_tf.config.planning import RECIPES, PlanConfig
from bert_tf.errors import shown
from bert_tf.jobs.run.memory import Rows, estimate_training
from bert_tf.scaling import (
    UPDATE_BYTES,
    Cluster,
    Device,
    Division,
    Link,
    StepTime,
    divide_recipe,
    efficiency,
    flops_per_sequence,
    num_gradients,
    step_time,
)

_PROG = "python -m bert_tf plan"
# Bytes/s that two cores copy, and how often a byte is read or written on its way into
# the buffer of an allreduce and out of it.
_MEMORY_RATE, _COPY_BYTES = 2e10, 4
# Horovod's cycle on CPUs, see `distribute`: it looks once in it for what is ready.
_CYCLE_SECONDS = 0.005
# A number in the encoder where the fused operations compute it, in bytes; without
# them, 0.
_FUSED_BYTES = {"bf16": 2, "fp16": 0}
# With --shard_optimizer: counts, norm and norms, and that weights are collected.
_SUMS_OF_SHARDS = 4
_LINKS = {"local": "workers of a host", "network": "hosts"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan for a number of workers.

    Attributes:
      division: Batch, accumulation and learning rate of each worker.
      hosts: Number of hosts.
      step: Time of an optimizer step.
      efficiency: Speed of each worker, as a part of that of one that trains alone.
      memory_bytes: Memory of the worker that needs most.
      hours: Time of all steps.
    """

    division: Division
    hosts: int
    step: StepTime
    efficiency: float
    memory_bytes: int
    hours: float

    @property
    def sequences_per_second(self) -> float:
        """Throughput of all workers together."""
        return self.division.sequences / self.step.total

    @property
    def exposed(self) -> float:
        """Part of a step in which all wait for the allreduce."""
        return self.step.allreduce / self.step.total


def main(arguments: Sequence[str]) -> None:
    """Prints the plans, after a measurement if that is asked for.

    Args:
      arguments: What follows `plan`.

    Raises:
      ValueError: if an option is wrong, or the recipe cannot be kept.
      FileNotFoundError, RunError: if a file is missing, or a measurement fails.
      SystemExit: after `--help`.
    """
    config = parse_config(PlanConfig, arguments, _PROG)
    bert, recipe = config.load_bert(), config.chosen_recipe
    # Before a measurement, which takes minutes.
    divisions = [
        divide_recipe(
            recipe, workers, config.train_batch_size, config.sequences_per_record
        )
        for workers in config.worker_counts
    ]
    _require_links(config)
    if config.measure:
        require_output_file("link_file", config.link_file)
        measure(config, bert)
    measured = read_link_file(config.link_file) if config.link_file else None
    cluster = make_cluster(config, measured)
    device = make_device(config, bert, measured)
    plans = [make_plan(config, bert, cluster, device, each) for each in divisions]
    notes = [
        f"A worker keeps {device.cores:g} of its host's {cluster.cores_per_host:g} "
        "cores busy.",
        *_measured_notes(config, bert, measured),
        *_notes(config, plans),
    ]
    if config.json:
        print(json.dumps(_to_json(config, bert, cluster, device, plans, notes)))
    else:
        print("\n".join(_lines(config, bert, plans, notes)))


def _require_links(config: PlanConfig) -> None:
    """Refuses numbers of workers between which there is a link of unknown speed."""
    most = max(config.worker_counts)
    needed = {
        "local": min(most, config.workers_per_host) > 1 and not config.link_file,
        "network": most > config.workers_per_host,
    }
    for kind, is_needed in needed.items():
        if is_needed and getattr(config, f"{kind}_bytes_per_second") is None:
            other = "--measure --link_file=link.json, or " * (kind == "local")
            names = [f"{kind}_latency_seconds", f"{kind}_bytes_per_second"]
            options = options_of(PlanConfig)
            about = " ".join(f"--{name}: {options[name].description}" for name in names)
            raise ValueError(
                f"The link between {_LINKS[kind]} must be known for {most:,} workers, "
                f"{config.workers_per_host} on each host. Pass {other}"
                f"--{names[0]} and --{names[1]}. {about}"
            )


def make_cluster(config: PlanConfig, measured: Measured | None) -> Cluster:
    """The hosts of a plan: as the options say, else as measured.

    Args:
      config: The options.
      measured: The content of link_file, if there is one.
    """
    links = {}
    for kind in _LINKS:
        latency = getattr(config, f"{kind}_latency_seconds")
        if latency is not None:
            per_byte = 1 / getattr(config, f"{kind}_bytes_per_second")
            links[kind] = Link(latency_seconds=latency, seconds_per_byte=per_byte)
    copies = _COPY_BYTES / (config.memory_bytes_per_second or _MEMORY_RATE)
    start, local = _CYCLE_SECONDS, links.get("local")
    if measured is not None:
        start, local = measured.host.start_seconds, local or measured.host.local
        if config.memory_bytes_per_second is None:
            copies = measured.host.copy_seconds_per_byte
    if config.start_seconds is not None:
        start = config.start_seconds
    return Cluster(
        workers_per_host=config.workers_per_host,
        cores_per_host=config.cores_per_host or resources.available_cores(),
        local=local,
        network=links.get("network"),
        start_seconds=start,
        copy_seconds_per_byte=copies,
    )


def make_device(
    config: PlanConfig, bert: BertConfig, measured: Measured | None
) -> Device:
    """One worker: as the options say, else as measured.

    Args:
      config: The options.
      bert: The architecture.
      measured: The content of link_file, if there is one.

    Raises:
      ValueError: if the speed is not known, or was measured in another precision.
    """
    recipe, cores = config.chosen_recipe, config.worker_cores
    flops = flops_per_sequence(
        bert,
        recipe.max_seq_length,
        recipe.max_predictions_per_seq,
        config.sequences_per_record,
    )
    rate = config.throughput
    if config.device_flops is not None:
        rate = config.device_flops / flops
    elif rate is None and measured is not None and measured.device_flops is not None:
        precision = measured.conditions["precision"]
        if precision != config.precision:
            raise ValueError(
                f"{config.link_file} has steps of precision={shown(precision)}. "
                f"Received: precision={config.precision}. Measure again with --measure,"
                " or pass --throughput."
            )
        rate, cores = measured.device_flops / flops, 1
    if rate is None:
        raise ValueError(
            "The speed of one worker must be known. Pass --throughput (sequences/s, "
            "throughput_train in the log of a short training), --device_flops, or "
            "--measure --link_file=link.json."
        )
    per_number = UPDATE_BYTES / (config.memory_bytes_per_second or _MEMORY_RATE)
    if config.memory_bytes_per_second is None and measured is not None:
        per_number = measured.update_seconds_per_number or per_number
    return Device(
        seconds_per_sequence=1 / rate,
        update_seconds=per_number * num_gradients(bert),
        cores=cores,
    )


def make_plan(
    config: PlanConfig,
    bert: BertConfig,
    cluster: Cluster,
    device: Device,
    division: Division,
) -> Plan:
    """The plan of a number of workers.

    Args:
      config: The options.
      bert: The architecture.
      cluster: The hosts.
      device: Each worker.
      division: The flags of so many workers.
    """
    recipe, workers = config.chosen_recipe, division.workers
    share = division.sequences / workers
    num_bytes, num_counts, updating = config.gradient_bytes, 1, device
    is_sharded = config.shard_optimizer and workers > 1
    if is_sharded:
        # Gradients travel half the way of an allreduce, and weights the other half.
        num_bytes, num_counts = (num_bytes + 4) / 2, _SUMS_OF_SHARDS
        updated = device.update_seconds / workers
        updating = dataclasses.replace(device, update_seconds=updated)
    gradient_bytes = num_bytes * num_gradients(bert)
    step = step_time(updating, cluster, workers, share, gradient_bytes, num_counts)
    predictions = recipe.max_predictions_per_seq * config.sequences_per_record
    rows = Rows(division.train_batch_size, recipe.max_seq_length, round(predictions))
    memory = estimate_training(
        bert,
        rows,
        fused_bytes=_FUSED_BYTES.get(config.precision, 4),
        num_workers=workers,
        saves=True,
        shards_optimizer=is_sharded,
    )
    return Plan(
        division=division,
        hosts=cluster.num_hosts(workers),
        step=step,
        efficiency=efficiency(device, recipe.global_batch_size, division, step),
        memory_bytes=memory.total,
        hours=recipe.num_train_steps * step.total / 3600,
    )


def flags_of(config: PlanConfig, division: Division) -> list[str]:
    """The flags of run_pretraining.py with which so many workers keep the recipe."""
    recipe = config.chosen_recipe
    return [
        f"--train_batch_size={division.train_batch_size}",
        f"--num_accumulation_steps={division.num_accumulation_steps}",
        f"--learning_rate={division.learning_rate!r}",
        f"--num_train_steps={recipe.num_train_steps}",
        f"--num_warmup_steps={recipe.num_warmup_steps}",
        *["--shard_optimizer"] * (config.shard_optimizer and division.workers > 1),
    ]


def _measured_notes(
    config: PlanConfig, bert: BertConfig, measured: Measured | None
) -> list[str]:
    """What was not measured, or under other conditions."""
    notes = []
    has_update = measured is not None and measured.update_seconds_per_number
    if config.memory_bytes_per_second is None and not has_update:
        notes.append(
            f"The update is that of --memory_bytes_per_second={_MEMORY_RATE:g}; a GPU "
            "has 1e12 or more."
        )
    if measured is None:
        return notes
    if config.gradient_bytes != 4:
        notes.append(
            f"warning: the allreduces of {config.link_file} were measured with 4 bytes."
        )
    now = conditions_of(config, bert)
    differ = [name for name, value in measured.conditions.items() if value != now[name]]
    if differ and config.throughput is None and config.device_flops is None:
        notes.append(
            f"warning: {config.link_file} has the speed of a worker with another "
            f"{', '.join(differ)}, which is converted in proportion to the FLOPs."
        )
    return notes


def _notes(config: PlanConfig, plans: Sequence[Plan]) -> list[str]:
    """How plans differ from what was asked for, and what they leave out."""
    notes, recipe, default = [], config.chosen_recipe, RECIPES[config.recipe]
    batch = config.train_batch_size
    smaller = [p.division for p in plans if p.division.train_batch_size < batch]
    if smaller:
        counts = ", ".join(f"{division.workers:,}" for division in smaller)
        notes.append(
            f"warning: micro-batches are smaller than {batch} for {counts} workers, to "
            "keep the recipe. They compute more slowly than planned if the throughput "
            "is that of larger ones."
        )
    is_other = recipe.global_batch_size != default.global_batch_size
    if is_other and config.learning_rate is None:
        notes.append(
            f"warning: the learning rate {recipe.learning_rate:g} is that of "
            f"{default.global_batch_size:,} sequences, not of "
            f"{recipe.global_batch_size:,}: see --learning_rate."
        )
    if config.sequences_per_record > 1:
        sizes = "; ".join(f"{p.division.sequences:,.0f}" for p in plans)
        notes.append(f"Sequences in a step of packed records, on average: {sizes}.")
    return [
        *notes,
        "Left out: evaluation, checkpoints, the first step, and workers that are "
        "slower than others. Nothing overlaps the allreduce. Memory is that of a CPU's "
        "worker, within 25%.",
    ]


def _lines(
    config: PlanConfig, bert: BertConfig, plans: Sequence[Plan], notes: Sequence[str]
) -> list[str]:
    recipe = config.chosen_recipe
    name = config.preset or config.bert_config_file
    lines = [
        f"{name}: {num_gradients(bert) / 1e6:.1f} million weights, "
        f"{recipe.global_batch_size:,} sequences of {recipe.max_seq_length} tokens a "
        f"step, {recipe.num_train_steps:,} steps, learning rate "
        f"{recipe.learning_rate:g}; gradients of {config.gradient_bytes} bytes",
        "",
        " workers  hosts  compute s  allreduce s  update s     step s  exposed"
        "  efficiency  sequences/s     hours  GiB each",
    ]
    for plan in plans:
        step = plan.step
        lines.append(
            f"{plan.division.workers:8,} {plan.hosts:6,} {step.compute:10.3f} "
            f"{step.allreduce:12.3f} {step.update:9.3f} {step.total:10.3f} "
            f"{plan.exposed:8.1%} {plan.efficiency:11.1%} "
            f"{plan.sequences_per_second:12,.1f} {plan.hours:9,.2f} "
            f"{plan.memory_bytes / 2**30:9.1f}"
        )
    lines += ["", "Flags that keep the recipe on so many workers:"]
    for plan in plans:
        flags = " ".join(flags_of(config, plan.division))
        lines.append(f"{plan.division.workers:8,}  {flags}")
    return [*lines, "", *notes]


def _to_json(
    config: PlanConfig,
    bert: BertConfig,
    cluster: Cluster,
    device: Device,
    plans: Sequence[Plan],
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "bert": bert.to_dict(),
        "recipe": dataclasses.asdict(config.chosen_recipe),
        "cluster": dataclasses.asdict(cluster),
        "device": dataclasses.asdict(device),
        "plans": [
            {
                **dataclasses.asdict(plan.division),
                "hosts": plan.hosts,
                "compute_seconds": plan.step.compute,
                "allreduce_seconds": plan.step.allreduce,
                "update_seconds": plan.step.update,
                "step_seconds": plan.step.total,
                "exposed_communication": plan.exposed,
                "efficiency": plan.efficiency,
                "sequences_per_second": plan.sequences_per_second,
                "hours": plan.hours,
                "memory_bytes": plan.memory_bytes,
                "flags": flags_of(config, plan.division),
            }
            for plan in plans
        ],
        "notes": list(notes),
    }
