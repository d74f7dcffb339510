"""Settings of processes, devices and precision, which all scripts share."""

import dataclasses
import importlib.util
import math

from bert_tf.config import checks
from bert_tf.errors import did_you_mean
from bert_tf.launch import launched_rank

TRACKERS = ("trackio", "wandb", "mlflow")
COMPRESSIONS = ("none", "fp16")
PRECISIONS = ("fp32", "avx-fp32", "bf32", "bf16", "fp16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Processes, devices and precision.

    Attributes:
      horovod: Train together with the other workers started by mpirun or horovodrun.
      horovod_hierarchical_allreduce: Reduce within each host first; needs a Horovod
        that was built with NCCL.
      horovod_fusion_threshold: Megabytes of gradients that are summed in one operation;
        default: Horovod's, 128. Another value rounds sums otherwise.
      horovod_compression: none, or fp16: gradients are sent as float16, half as many
        bytes.
      shard_optimizer: Each of N workers keeps 1/N of the optimizer's state, updates 1/N
        of the weights, and gets the others from their workers.
      precision: fp32; avx-fp32 (no instructions beyond AVX-512); bf32 (float32
        everywhere, bfloat16 products inside oneDNN); bf16 (bfloat16 products and
        activations); fp16 (float16 products, with a loss scale). Default: from
        bf16_config_path, else from the environment variable TF_BF16_CONVERSION, else
        fp32.
      amp: The same as --precision=fp16.
      init_loss_scale: Initial loss scale of fp16, a power of 2; halved when a gradient
        overflows, doubled after 2000 steps without an overflow.
      bf16_config_path: A JSON file with lists of the operations that compute in
        bfloat16, such as bf16_config/bert.json. Default: the path in the environment
        variable TF_BF16_CONVERSION, if it is set.
      dump_precision: Print the compute dtype of each operation of the model.
      use_xla: Compile each micro-batch with XLA, and norm and update too where no fused
        operations compute them; with bf16, activations are bfloat16. Meant for GPUs;
        slower on CPUs.
      num_threads: Threads per worker, at most 16 for each core; default: an even share
        of the cores of this host, or of its container's CPU limit.
      profile: X,Y: trace optimizer steps X to Y for TensorBoard, and print which
        operations took longest.
      recompute: Recompute activations in the backward pass instead of storing them.
      unpad: Skip the padding after the tokens of each row in the encoder, and in its
        last layer what no head reads, where the fused operations compute it. The losses
        are the same.
      watchdog_seconds: End the process, with the stacks of its threads, when no step or
        evaluation batch has ended for so long, or another worker has not answered;
        0: never. Default: 600, or 20 times the median step if that is longer.
      tensorboard: Write event files for TensorBoard into <output_dir>/tensorboard.
      tracker: Comma-separated trackers that get the log's values too, through their
        packages: trackio, wandb, mlflow. They stay offline unless their own environment
        variables say otherwise.
    """

    horovod: bool = False
    horovod_hierarchical_allreduce: bool = False
    horovod_fusion_threshold: int | None = None
    horovod_compression: str = "none"
    shard_optimizer: bool = False
    precision: str = ""
    amp: bool = False
    init_loss_scale: float = 65536.0
    bf16_config_path: str = ""
    dump_precision: bool = False
    use_xla: bool = False
    num_threads: int | None = None
    profile: str = ""
    recompute: bool = False
    unpad: bool = True
    watchdog_seconds: float | None = None
    tensorboard: bool = True
    tracker: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks each field, and that two of them do not contradict each other."""
        checks.require_range(self, "profile")
        if self.precision:
            checks.require_choice(self, "precision", PRECISIONS)
        checks.require(
            1.0 <= self.init_loss_scale <= 2.0**32
            and math.frexp(self.init_loss_scale)[0] == 0.5,
            "init_loss_scale",
            "be a power of 2 from 1 to 2^32",
            self.init_loss_scale,
        )
        checks.require_positive(self, "num_threads")
        names = ("watchdog_seconds", "horovod_fusion_threshold")
        checks.require_not_negative(self, *names)
        self._check_precisions()
        self._check_wire()
        self._check_trackers()

    def _check_trackers(self) -> None:
        """Checks that they are known, and installed where the first worker runs."""
        for name in self.tracker:
            checks.require(
                name in TRACKERS,
                "tracker",
                f"list names among {', '.join(TRACKERS)}",
                ",".join(self.tracker),
                did_you_mean(name, TRACKERS),
            )
            spec = importlib.util.find_spec(name) if launched_rank() == 0 else True
            # A folder of that name, as these packages make, has no origin.
            if spec is None or (spec is not True and spec.origin is None):
                raise ValueError(
                    f"`tracker` {name} needs its package, which is not installed. "
                    f"Received: tracker={','.join(self.tracker)!r}. Run `pip install "
                    f"{name}`, or leave it out."
                )

    @property
    def trackers(self) -> tuple[str, ...]:
        """All that are to be used."""
        return ("tensorboard",) * self.tensorboard + self.tracker

    def _check_wire(self) -> None:
        """Checks how workers add up gradients."""
        for name in ("horovod_hierarchical_allreduce", "shard_optimizer"):
            if getattr(self, name) and not self.horovod:
                raise ValueError(
                    f"`{name}` needs `horovod`. Received: {name}=True, horovod=False. "
                    "Pass --horovod."
                )
        if self.horovod_compression in ("bf16", "bfloat16"):
            raise ValueError(
                "`horovod_compression` must be none or fp16. Received: "
                f"horovod_compression={self.horovod_compression!r}, a type that "
                "Horovod does not reduce: MPI has none of that kind. Pass fp16, which "
                "sends as few bytes."
            )
        checks.require_choice(self, "horovod_compression", COMPRESSIONS)

    @property
    def chosen_precision(self) -> str:
        """The precision that the flags set; empty if none does."""
        return "fp16" if self.amp else self.precision

    def _check_precisions(self) -> None:
        """Checks that no two flags set different precisions."""
        for name, meant in (("amp", "fp16"), ("bf16_config_path", "bf16")):
            value = getattr(self, name)
            if value and self.precision not in ("", meant):
                raise ValueError(
                    f"`precision` and `{name}` must agree. Received: precision="
                    f"{self.precision!r}, {name}={value!r}. Drop one of them."
                )
        if self.amp and self.bf16_config_path:
            raise ValueError(
                "`amp`, which is float16, and `bf16_config_path` must not be given "
                "together. Received: amp=True, bf16_config_path="
                f"{self.bf16_config_path!r}. Drop one of them."
            )
