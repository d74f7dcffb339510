"""Settings of `python -m bert_tf plan`."""

import dataclasses

from bert_tf.config import checks
from bert_tf.config.model import PRESETS, BertConfig
from bert_tf.config.runtime import PRECISIONS
from bert_tf.errors import shown

_MAX_WORKERS, _MAX_NUMBERS = 1_000_000, 100
_MODEL = "Pass --preset, or --bert_config_file."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the result of a pre-training, on any number of workers.

    Attributes:
      max_seq_length: S, tokens in a row.
      max_predictions_per_seq: P, masked tokens in a sequence.
      global_batch_size: Sequences of a step, on all workers.
      num_train_steps: Optimizer steps.
      num_warmup_steps: The steps of warm-up among them.
      learning_rate: Peak, of all workers together.
    """

    max_seq_length: int
    max_predictions_per_seq: int
    global_batch_size: int
    num_train_steps: int
    num_warmup_steps: int
    learning_rate: float


# Source: You et al. 2020 (arXiv:1904.00962), as NVIDIA and Habana train it.
RECIPES = {
    "phase1": Recipe(
        max_seq_length=128,
        max_predictions_per_seq=20,
        global_batch_size=65_536,
        num_train_steps=7038,
        num_warmup_steps=2000,
        learning_rate=0.006,
    ),
    "phase2": Recipe(
        max_seq_length=512,
        max_predictions_per_seq=80,
        global_batch_size=32_768,
        num_train_steps=1564,
        num_warmup_steps=200,
        learning_rate=0.004,
    ),
}
_OF_RECIPE = tuple(field.name for field in dataclasses.fields(Recipe))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Plan a pre-training: time, memory and flags for numbers of workers.

    Attributes:
      preset: A published architecture: tiny, mini, small, medium, base or large.
      bert_config_file: The architecture, a bert_config.json, instead of preset.
      recipe: phase1 (65,536 sequences of 128, 7,038 steps, learning rate 0.006) or
        phase2 (32,768 of 512, 1,564 steps, 0.004); what is passed of the next six
        options replaces its values.
      max_seq_length: Tokens in a row. Default, also of the next five: the recipe's.
      max_predictions_per_seq: Masked tokens in a sequence.
      global_batch_size: Sequences of a step, on all workers.
      num_train_steps: Optimizer steps.
      num_warmup_steps: The steps of warm-up among them.
      learning_rate: Peak learning rate of all workers together; the flags of a plan
        have it divided by their number, with which run_pretraining.py multiplies it.
      train_batch_size: The most records in a micro-batch that a worker has memory for;
        a plan has the largest micro-batches up to this size that keep the recipe.
      sequences_per_record: Sequences in a record: of packed records avg_seq_per_sample
        in their metadata.
      workers: Comma-separated numbers of workers.
      workers_per_host: Workers on each host.
      cores_per_host: Cores of each host. Default: of this machine.
      precision: Precision of the training: fp32, avx-fp32, bf32, bf16 or fp16.
      throughput: Sequences/s of one worker that trains alone: throughput_train in its
        log, with at least 8 micro-batches in a step.
      device_flops: FLOP/s of one worker, instead of throughput: those that its training
        reaches, in the convention of docs/planning.md.
      worker_cores: Cores that compute in this worker.
      memory_bytes_per_second: Bandwidth of a worker's memory, for the time of the
        update and of copies in an allreduce. Default: measured, or 2e10, of two cores.
      gradient_bytes: Bytes of a gradient's number in the allreduce: 4, or 2 in fp16.
      shard_optimizer: Plan for --shard_optimizer of run_pretraining.py.
      local_latency_seconds: Latency of one message between workers of a host.
      local_bytes_per_second: Bandwidth between two workers of a host, each way.
      network_latency_seconds: Latency of one message between hosts. Typical of TCP over
        Ethernet, not measured here: 5e-5 at 1 Gbit/s, 3e-5 at 10 and more.
      network_bytes_per_second: Bandwidth of all links of a host together, each way.
        Typical of TCP over Ethernet, not measured here: 1.2e8 at 1 Gbit/s, 1.2e9 at 10,
        2.9e9 at 25; at 100, 4e9 by one connection and 1.1e10 by several.
      start_seconds: Time from the call of an allreduce to its first message. Default:
        measured, or 0.005, Horovod's cycle on CPUs; on GPUs it is 0.001.
      measure: Measure allreduces of 1, 2 and 4 workers, and steps of one, on this
        machine, and write them into link_file.
      measure_seconds: The most that each of these three runs may take.
      link_file: JSON that --measure writes, and that a plan reads; options above
        replace its values.
      json: Print JSON instead of tables.
    """

    preset: str = ""
    bert_config_file: str = ""
    recipe: str = "phase1"
    max_seq_length: int | None = None
    max_predictions_per_seq: int | None = None
    global_batch_size: int | None = None
    num_train_steps: int | None = None
    num_warmup_steps: int | None = None
    learning_rate: float | None = None
    train_batch_size: int = 32
    sequences_per_record: float = 1.0
    workers: str = "1,8,256,1024"
    workers_per_host: int = 8
    cores_per_host: int | None = None
    precision: str = "fp32"
    throughput: float | None = None
    device_flops: float | None = None
    worker_cores: int = 1
    memory_bytes_per_second: float | None = None
    gradient_bytes: int = 4
    shard_optimizer: bool = False
    local_latency_seconds: float | None = None
    local_bytes_per_second: float | None = None
    network_latency_seconds: float | None = None
    network_bytes_per_second: float | None = None
    start_seconds: float | None = None
    measure: bool = False
    measure_seconds: int = 300
    link_file: str = ""
    json: bool = False

    def __post_init__(self) -> None:
        """Checks each field, and that those of a pair are given together."""
        checks.require(
            bool(self.preset) != bool(self.bert_config_file),
            "preset",
            "be given, or `bert_config_file` instead",
            self.preset,
            _MODEL,
        )
        if self.preset:
            checks.require_choice(self, "preset", tuple(PRESETS))
        checks.require_choice(self, "recipe", tuple(RECIPES))
        checks.require_choice(self, "precision", PRECISIONS)
        is_known = self.gradient_bytes in (2, 4)
        checks.require(is_known, "gradient_bytes", "be 2 or 4", self.gradient_bytes)
        self._check_numbers()
        checks.require(
            self.throughput is None or self.device_flops is None,
            "device_flops",
            "not be given with `throughput`",
            self.device_flops,
            "Leave out one of them.",
        )
        for kind in ("local", "network"):
            pair = (f"{kind}_latency_seconds", f"{kind}_bytes_per_second")
            values = [getattr(self, name) for name in pair]
            rule = f"be given with `{pair[0]}`"
            checks.require(values.count(None) != 1, pair[1], rule, values[1])
        checks.require(
            bool(self.link_file) or not self.measure,
            "link_file",
            "be given with `measure`, which writes it",
            "",
            "Pass --link_file=link.json.",
        )
        self.worker_counts  # noqa: B018 - checks it

    def _check_numbers(self) -> None:
        names = ("train_batch_size", "workers_per_host", "worker_cores")
        checks.require_positive(self, *names, "measure_seconds")
        rule = "be at least 1 and finite"
        is_valid = 1 <= self.sequences_per_record < checks.MAX_NUMBER
        name = "sequences_per_record"
        checks.require(is_valid, name, rule, self.sequences_per_record)
        times = ("network_latency_seconds", "local_latency_seconds", "start_seconds")
        checks.require_not_negative(self, *times)
        rates = ("memory_bytes_per_second", "local_bytes_per_second")
        rates += ("network_bytes_per_second",)
        names = ("throughput", "device_flops", "cores_per_host", *rates)
        checks.require_positive(self, *names)
        recipe = self.chosen_recipe
        checks.require_positive(
            recipe,
            *(name for name in _OF_RECIPE if name != "num_warmup_steps"),
        )
        checks.require_not_negative(recipe, "num_warmup_steps")
        checks.require(
            recipe.num_warmup_steps < recipe.num_train_steps,
            "num_warmup_steps",
            f"be less than num_train_steps={recipe.num_train_steps}",
            recipe.num_warmup_steps,
            self._remedy("num_warmup_steps", recipe.num_train_steps // 10),
        )
        checks.require(
            recipe.max_predictions_per_seq <= recipe.max_seq_length,
            "max_predictions_per_seq",
            f"be at most max_seq_length={recipe.max_seq_length}",
            recipe.max_predictions_per_seq,
            self._remedy(
                "max_predictions_per_seq", max(1, recipe.max_seq_length * 15 // 100)
            ),
        )

    def _remedy(self, name: str, usual: int) -> str:
        """What to pass where a value does not fit, and whose value that is."""
        if getattr(self, name) is not None:
            return ""
        return f"That is the value of --recipe={self.recipe}. Pass --{name}={usual}."

    @property
    def worker_counts(self) -> list[int]:
        """Numbers of workers.

        Raises:
          ValueError: if `workers` is not a list of them.
        """
        parts = [part.strip() for part in self.workers.split(",")]
        is_valid = len(parts) <= _MAX_NUMBERS and all(
            part.isdecimal() and len(part) <= 7 and 1 <= int(part) <= _MAX_WORKERS
            for part in parts
        )
        if not is_valid:
            raise ValueError(
                f"`workers` must be up to {_MAX_NUMBERS} numbers from 1 to "
                f"{_MAX_WORKERS:,} with commas between them. Received: workers="
                f"{shown(self.workers)}. Pass --workers=1,8,256, for example."
            )
        return list(dict.fromkeys(map(int, parts)))

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe, with those values replaced that are passed."""
        values = {name: getattr(self, name) for name in _OF_RECIPE}
        given = {name: value for name, value in values.items() if value is not None}
        return dataclasses.replace(RECIPES[self.recipe], **given)

    def load_bert(self) -> BertConfig:
        """The architecture.

        Raises:
          FileNotFoundError, ValueError: if its file is missing or wrong, or if its
            sequences are shorter than the recipe's.
        """
        bert = PRESETS.get(self.preset)
        if bert is None:
            bert = BertConfig.from_json_file(self.bert_config_file)
        recipe = self.chosen_recipe
        checks.require(
            recipe.max_seq_length <= bert.max_position_embeddings,
            "max_seq_length",
            f"be at most max_position_embeddings={bert.max_position_embeddings}",
            recipe.max_seq_length,
        )
        return bert
