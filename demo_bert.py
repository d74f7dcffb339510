#!/usr/bin/env python
"""Pre-trains or fine-tunes a published BERT with one command, as Habana's demo did.

It gets weights and data, works out batches and learning rates for the number of
workers, starts them with mpirun, and runs both phases of a pre-training:

    python demo_bert.py --command pretraining --model_variant large --data_type bf16 \
        --test_set bookswiki --dataset_path /data/tfrecord/ --use_horovod 8
    python demo_bert.py -c finetuning -m base -d bf16 -t squad -v 2 --dry_run

Variables of the environment: MULTI_HLS_IPS (comma-separated addresses of the hosts),
DOCKER_SSHD_PORT (of their sshd, default 3022), MPI_TCP_INCLUDE (network interfaces),
MPI_MAP_BY (socket, slot or none). The same command resumes a run that was stopped.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping

from bert_tf.cli.arguments import Parser, parse_bool
from bert_tf.config.paths import require_local
from bert_tf.launch import launched_size

ROOT = pathlib.Path(__file__).resolve().parent
PYTHON = sys.executable
BOOKSWIKI, OVERFIT, MRPC, SQUAD = "bookswiki", "overfit", "mrpc", "squad"
PRETRAINING, FINETUNING = "pretraining", "finetuning"
_TEST_SETS = {PRETRAINING: (BOOKSWIKI, OVERFIT), FINETUNING: (MRPC, SQUAD)}

# Folder of the publication, and name, of each variant; large masks whole words.
_UNCASED = "2020_02_20/uncased_"
MODELS = {
    "tiny": f"{_UNCASED}L-2_H-128_A-2",
    "mini": f"{_UNCASED}L-4_H-256_A-4",
    "small": f"{_UNCASED}L-4_H-512_A-8",
    "medium": f"{_UNCASED}L-8_H-512_A-8",
    "base": f"{_UNCASED}L-12_H-768_A-12",
    "large": "2019_05_30/wwm_uncased_L-24_H-1024_A-16",
}
_MODELS_URL = "https://storage.googleapis.com/bert_models/"

# Sequences of a step, and the learning rate of 8 workers for that many; by phase.
GLOBAL_BATCHES = (65536, 32768)
FAST_GLOBAL_BATCHES = (1600, 200)
_RATES, _RATE_WORKERS = (7.5e-4, 5e-4), 8
# Of all workers together. The original's, 0.006 x 32 / 65536, is too small for 200
# steps; with this one, a random tiny model goes from a loss of 11.0 to 0.3.
_OVERFIT_RATE = 0.02
_FINETUNING_RATE = 2e-5
# Phase 2 counts its steps in global batches of phase 1.
ITERATIONS = {BOOKSWIKI: (7038, 782), OVERFIT: (200,)}
WARMUPS = {BOOKSWIKI: (2000, 200), OVERFIT: (10,)}
LENGTHS = {BOOKSWIKI: (128, 512), OVERFIT: (128,), MRPC: (128,), SQUAD: (384,)}
PREDICTIONS = {128: 20, 512: 80}
BATCHES = {
    BOOKSWIKI: {"bf16": (64, 8), "fp32": (32, 8)},
    OVERFIT: {"bf16": (32,), "fp32": (32,)},
    MRPC: {"bf16": (64,), "fp32": (32,)},
    SQUAD: {"bf16": (24,), "fp32": (10,)},
}
EPOCHS = {MRPC: 3.0, SQUAD: 2.0}
# Name of the download, and a file of it.
_DOWNLOADS = {
    MRPC: ("mrpc", "MRPC/train.tsv"),
    SQUAD: ("squad-1.1", "squad-1.1/train-v1.1.json"),
}
_PATHS = (
    *("output_dir", "dataset_path", "bert_config_dir", "checkpoint_folder"),
    *("init_checkpoint_path", "bf16_config_path"),
)
_WEIGHT_FILES = (".safetensors", ".bin", ".index")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command of a demo.

    Attributes:
      title: Name for the screen.
      command: The program and its arguments.
      output: A file or folder whose existence makes the command needless; or empty.
      log: Where its output is written too; or empty.
    """

    title: str
    command: tuple[str, ...]
    output: str = ""
    log: str = ""


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) > 2 or not all(p.isdecimal() and int(p) for p in parts):
        raise argparse.ArgumentTypeError(
            f"must be one or two numbers greater than 0, such as 64 or 64,8, not "
            f"{text!r}"
        )
    return tuple(map(int, parts))


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(
            f"must be a positive whole number, not {text!r}"
        )
    return int(text)


def _steps(text: str) -> str:
    if not re.fullmatch(r"\d+,\d+", text):
        raise argparse.ArgumentTypeError(f"must be two steps X,Y, not {text!r}")
    return text


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the original script, with its defaults.

    Raises:
      ValueError, OSError: if an option is unknown, or a value not allowed.
    """
    parser = Parser(
        prog="demo_bert.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--command", required=True, choices=tuple(_TEST_SETS))
    add("-d", "--data_type", required=True, choices=("fp32", "bf16"))
    add("-m", "--model_variant", required=True, choices=tuple(MODELS))
    add("-t", "--test_set", choices=sum(_TEST_SETS.values(), ()))
    add("-o", "--output_dir", default="/tmp/bert", help="default: /tmp/bert")
    add("-v", "--use_horovod", type=_positive, help="workers on each host")
    add("-e", "--epochs", type=float, help="of a fine-tuning; mrpc 3, squad 2")
    add("-s", "--max_seq_length", type=_numbers, help="one, or one of each phase")
    add("-i", "--iters", type=_numbers, help="steps; 7038,782 of batches of 65536")
    add("-w", "--warmup", type=_numbers, help="steps of warm-up; 2000,200")
    add("-b", "--batch_size", type=_numbers, help="sequences of a micro-batch")
    add("--global_batch_size", type=_numbers, help="sequences of a step; 65536,32768")
    add("-fpo", "--fast_perf_only", type=int, choices=(0, 1), default=0)
    add("--no_steps_accumulation", type=int, choices=(0, 1), default=0)
    add(
        "--learning_rate",
        type=float,
        help="--learning_rate of the training script, of each phase; default: that of "
        f"the global batch, or {_FINETUNING_RATE:g} for a fine-tuning",
    )
    add("--save_ckpt_steps", type=_positive, default=100)
    add("--dataset_path", default="./dataset/")
    add("--bert-config-dir", help="folder of the model; default: ./NAME, downloaded")
    add("--checkpoint_folder", help="the same")
    add("--init_checkpoint_path", help="weights; default: those of the model's folder")
    add("--bf16_config_path", default=str(ROOT / "bf16_config" / "bert.json"))
    add("--horovod_hierarchical_allreduce", action="store_true")
    add("--run_phase2", action="store_true", help="only the second phase")
    add("--resume_p1", type=parse_bool, nargs="?", const=True, default=False)
    add("--resume_p2", type=parse_bool, nargs="?", const=True, default=False)
    add("--profile", type=_steps, help="X,Y: trace these steps of each phase")
    add("--dry_run", action="store_true", help="print the commands and end")
    for name in ("iterations_per_loop", "avg_seq_per_pack", "model"):
        add(f"--{name}", help="accepted, without effect")
    for name in ("enable_packed_data_mode", "enable_scoped_allocator"):
        add(f"--{name}", action="store_true", help="accepted, without effect")
    add("--kubernetes_run", type=parse_bool, nargs="?", const=True, default=False)
    return _checked(parser.parse_args(arguments))


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """Fills in the test set, and refuses what does not fit together."""
    for name in _PATHS:
        require_local(name, getattr(options, name) or "")
    allowed = _TEST_SETS[options.command]
    options.test_set = options.test_set or allowed[0]
    if options.test_set not in allowed:
        raise ValueError(
            f"`test_set` must be {' or '.join(allowed)} with --command="
            f"{options.command}. Received: {options.test_set}."
        )
    if launched_size() > 1:
        raise ValueError(
            "demo_bert.py starts mpirun itself, and must not be run by it. Pass the "
            "number of workers of each host as --use_horovod."
        )
    return options


def workers(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Workers on all hosts."""
    return (options.use_horovod or 1) * max(1, len(_hosts(environment)))


def _hosts(environment: Mapping[str, str]) -> list[str]:
    addresses = environment.get("MULTI_HLS_IPS", "").split(",")
    return [address.strip() for address in addresses if address.strip()]


def launcher(
    options: argparse.Namespace, environment: Mapping[str, str], cores: int
) -> list[str]:
    """What comes before `python script.py`: mpirun, or nothing for one process.

    Args:
      options: The options of the command line.
      environment: The variables of the environment.
      cores: Cores of each host.

    Raises:
      ValueError: if MPI_MAP_BY is none of its values.
    """
    if options.use_horovod is None:
        if _hosts(environment):
            raise ValueError(
                "MULTI_HLS_IPS names hosts, but there are no workers on them. Pass the "
                "number of each host as --use_horovod, or unset MULTI_HLS_IPS."
            )
        return [PYTHON]
    launch = [PYTHON, "-m", "bert_tf", "launch", "--", "mpirun", "--tag-output"]
    if os.geteuid() == 0:
        launch.append("--allow-run-as-root")
    per_host, hosts = options.use_horovod, _hosts(environment)
    map_by = environment.get("MPI_MAP_BY", "socket" if hosts else "none")
    if map_by not in ("socket", "slot", "none"):
        raise ValueError(
            f"MPI_MAP_BY must be socket, slot or none. Received: {map_by!r}."
        )
    if map_by == "none":
        launch += ["--bind-to", "none"]
    else:
        # Two threads of a core are listed as two processors.
        share = max(1, cores // per_host // 2)
        launch += ["--bind-to", "core", "--map-by", f"{map_by}:PE={share}"]
    if hosts:
        port = environment.get("DOCKER_SSHD_PORT", "3022")
        if not port.isdecimal():
            raise ValueError(f"DOCKER_SSHD_PORT must be a number. Received: {port!r}.")
        launch += ["-H", ",".join(f"{host}:{per_host}" for host in hosts)]
        launch += ["--mca", "plm_rsh_args", f"-p{port}"]
    elif per_host > cores:
        launch.append("--oversubscribe")
    if networks := environment.get("MPI_TCP_INCLUDE"):
        launch += ["--mca", "btl_tcp_if_include", networks]
    return [*launch, "-np", str(workers(options, environment)), PYTHON]


def _phase(values: tuple[float, ...], phase: int) -> float:
    """The value of a phase, from 0; the last one holds for phases without their own."""
    return values[min(phase, len(values) - 1)]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Batches, steps and learning rate of one phase.

    Attributes:
      length: S, tokens in a sequence.
      batch: Sequences of a micro-batch.
      accumulation: Micro-batches of a step on each worker.
      steps: Optimizer steps.
      warmup: The steps of warm-up among them.
      rate: Learning rate of a worker, which run_pretraining.py multiplies by their
        number.
    """

    length: int
    batch: int
    accumulation: int
    steps: int
    warmup: int
    rate: float


def recipe(options: argparse.Namespace, phase: int, num_workers: int) -> Recipe:
    """The original arithmetic, but for the learning rate of the sample text.

    Args:
      options: The options of the command line.
      phase: 0 or 1.
      num_workers: On all hosts.

    Raises:
      ValueError: if the global batch cannot be divided.
    """
    name, data_type = options.test_set, options.data_type
    batch = _phase(options.batch_size or BATCHES[name][data_type], phase)
    length = _phase(options.max_seq_length or LENGTHS[name], phase)
    asked = options.global_batch_size or (
        FAST_GLOBAL_BATCHES if options.fast_perf_only else GLOBAL_BATCHES
    )
    global_batch = _phase(asked, phase)
    accumulation = 1
    if name == BOOKSWIKI and not options.no_steps_accumulation:
        accumulation = global_batch // (num_workers * batch)
        if accumulation < 1:
            raise ValueError(
                f"A step of {global_batch} sequences is less than one micro-batch of "
                f"{batch} on {num_workers} worker{'s' * (num_workers != 1)}. Pass a "
                "smaller --batch_size."
            )
    if name == OVERFIT:
        rate = _OVERFIT_RATE / num_workers
    else:
        share = global_batch / GLOBAL_BATCHES[phase]
        rate = _RATES[phase] * _RATE_WORKERS / num_workers * share
    if options.learning_rate is not None:
        rate = options.learning_rate
    steps = _phase(options.iters or ITERATIONS[name], phase)
    if phase == 1 and not options.iters:
        steps = steps * asked[0] // global_batch
    warmup = min(_phase(options.warmup or WARMUPS[name], phase), steps - 1)
    return Recipe(length, batch, accumulation, steps, warmup, rate)


def model_folder(options: argparse.Namespace) -> pathlib.Path:
    """The folder of bert_config.json, vocab.txt and bert_model.ckpt."""
    given = options.bert_config_dir or options.checkpoint_folder
    return pathlib.Path(given or MODELS[options.model_variant].rpartition("/")[2])


def initial_weights(options: argparse.Namespace) -> list[str]:
    """The flag of the weights to start from; none where the folder holds no weights."""
    if options.init_checkpoint_path:
        return [f"--init_checkpoint={options.init_checkpoint_path}"]
    folder = model_folder(options)
    is_given = options.bert_config_dir or options.checkpoint_folder
    if is_given and not (folder / "bert_model.ckpt.index").exists():
        others = [path for path in folder.glob("*") if path.suffix in _WEIGHT_FILES]
        return [f"--init_checkpoint={folder}"] if others else []
    return [f"--init_checkpoint={folder}/bert_model.ckpt"]


def stages(
    options: argparse.Namespace,
    environment: Mapping[str, str],
    cores: int = os.cpu_count() or 1,
) -> list[Stage]:
    """All commands of a demo, in order.

    Args:
      options: The options of the command line.
      environment: The variables of the environment.
      cores: Cores of each host.
    """
    start = launcher(options, environment, cores)
    found = _preparation(options)
    if options.command == FINETUNING:
        return [*found, _finetuning(options, start)]
    phases = len(LENGTHS[options.test_set])
    if options.iters:
        phases = min(phases, len(options.iters))
    first = 1 if options.run_phase2 else 0
    count = workers(options, environment)
    recipes = [recipe(options, phase, count) for phase in range(max(phases, first + 1))]
    return found + [
        _pretraining(options, start, phase, recipes)
        for phase in range(first, len(recipes))
    ]


def _preparation(options: argparse.Namespace) -> list[Stage]:
    """Downloads, and the records of the sample text."""
    found, folder = [], model_folder(options)
    if not (options.bert_config_dir or options.checkpoint_folder):
        published, _, name = MODELS[options.model_variant].partition("/")
        script = str(ROOT / "scripts" / "download_pretrained_model.py")
        url, flatten = f"{_MODELS_URL}{published}/", str(published == "2019_05_30")
        command = (PYTHON, script, url, name, flatten)
        found.append(Stage("weights", command, f"{folder}/bert_config.json"))
    data = options.dataset_path
    if options.test_set in _DOWNLOADS:
        name, _ = _DOWNLOADS[options.test_set]
        download = (PYTHON, "-m", "bert_tf", "data", "download")
        command = (*download, f"--name={name}", f"--output_dir={data}")
        found.append(Stage("data", command, str(_data_file(options))))
    elif options.test_set == OVERFIT:
        script = str(ROOT / "scripts" / "create_pretraining_data_overfit.py")
        length = str(LENGTHS[OVERFIT][0])
        command = (PYTHON, script, data, str(folder), length, "20")
        records = _records(options, LENGTHS[OVERFIT][0], "training")
        found.append(Stage("data", command, str(records)))
    return found


def _data_file(options: argparse.Namespace) -> pathlib.Path:
    """The training file of a fine-tuning: the user's own, or the downloaded one."""
    folder = pathlib.Path(options.dataset_path)
    downloaded = folder / _DOWNLOADS[options.test_set][1]
    own = folder / downloaded.name
    return own if own.exists() else downloaded


def _records(options: argparse.Namespace, length: int, side: str) -> pathlib.Path:
    folder = pathlib.Path(options.dataset_path)
    if options.test_set == OVERFIT:
        return folder / "tfrecord" / f"seq_len_{length}" / "overfit" / side
    return folder / f"seq_len_{length}" / "books_wiki_en_corpus" / side


def _shared_flags(options: argparse.Namespace) -> list[str]:
    folder = model_folder(options)
    flags = [f"--bert_config_file={folder}/bert_config.json"]
    flags += [f"--save_checkpoints_steps={options.save_ckpt_steps}"]
    if options.data_type == "bf16":
        flags.append(f"--bf16_config_path={options.bf16_config_path}")
    if options.use_horovod:
        flags.append("--horovod")
    if options.horovod_hierarchical_allreduce:
        flags.append("--horovod_hierarchical_allreduce")
    if options.profile:
        flags.append(f"--profile={options.profile}")
    return flags


def _pretraining(
    options: argparse.Namespace, start: list[str], phase: int, recipes: list[Recipe]
) -> Stage:
    own, folder = recipes[phase], pathlib.Path(options.output_dir)
    output = folder / f"phase_{phase + 1}"
    weights = [f"--init_checkpoint={folder}/phase_1/model.ckpt-{recipes[0].steps}"]
    if phase == 0 or (options.run_phase2 and options.init_checkpoint_path):
        weights = initial_weights(options)
    predictions = PREDICTIONS.get(own.length, max(1, round(0.15 * own.length)))
    command = (
        *start,
        str(ROOT / "run_pretraining.py"),
        f"--input_files_dir={_records(options, own.length, 'training')}",
        f"--eval_files_dir={_records(options, own.length, 'test')}",
        f"--output_dir={output}",
        *weights,
        *("--do_train=True", "--do_eval=True"),
        f"--train_batch_size={own.batch}",
        f"--num_accumulation_steps={own.accumulation}",
        f"--max_seq_length={own.length}",
        f"--max_predictions_per_seq={predictions}",
        f"--num_train_steps={own.steps}",
        f"--num_warmup_steps={own.warmup}",
        f"--learning_rate={own.rate:g}",
        "--allreduce_post_accumulation=True",
        *_shared_flags(options),
        f"--resume={(options.resume_p1, options.resume_p2)[phase]}",
    )
    return Stage(f"phase {phase + 1}", command, log=f"{output}.log")


def _finetuning(options: argparse.Namespace, start: list[str]) -> Stage:
    name, folder = options.test_set, model_folder(options)
    output = pathlib.Path(options.output_dir) / name
    data = _data_file(options).parent
    epochs = EPOCHS[name] if options.epochs is None else options.epochs
    rate = options.learning_rate
    rate = _FINETUNING_RATE if rate is None else rate
    if name == MRPC:
        task = ["run_classifier.py", "--task_name=MRPC", f"--data_dir={data}"]
    else:
        task = [
            "run_squad.py",
            f"--train_file={data}/train-v1.1.json",
            f"--predict_file={data}/dev-v1.1.json",
            "--do_predict=True",
        ]
        if options.iters:
            task.append(f"--num_train_steps={options.iters[0]}")
    batch = _phase(options.batch_size or BATCHES[name][options.data_type], 0)
    command = (
        *start,
        str(ROOT / task[0]),
        *task[1:],
        f"--vocab_file={folder}/vocab.txt",
        *initial_weights(options),
        *("--do_train=True", "--do_eval=True"),
        f"--train_batch_size={batch}",
        f"--max_seq_length={_phase(options.max_seq_length or LENGTHS[name], 0)}",
        f"--num_train_epochs={epochs:g}",
        f"--learning_rate={rate:g}",
        *_shared_flags(options),
        f"--output_dir={output}",
    )
    return Stage(name, command, log=f"{output}.log")


def without_effect(options: argparse.Namespace) -> list[str]:
    """The options that were given and change nothing."""
    names = ["iterations_per_loop", "avg_seq_per_pack", "model", "kubernetes_run"]
    names += ["enable_packed_data_mode", "enable_scoped_allocator"]
    if options.command == PRETRAINING:
        names.append("epochs")
    else:
        names += ["warmup", "global_batch_size", "run_phase2", "resume_p1", "resume_p2"]
    return [f"--{name}" for name in names if getattr(options, name)]


def check_records(options: argparse.Namespace, found: list[Stage]) -> None:
    """Looks for the records of Wikipedia and books, before weights are downloaded.

    Raises:
      ValueError: if a folder of them is missing.
    """
    if options.test_set != BOOKSWIKI:
        return
    flags = [word for stage in found if stage.log for word in stage.command]
    for flag in flags:
        name, _, folder = flag.partition("=")
        if name in ("--input_files_dir", "--eval_files_dir"):
            if not os.path.isdir(folder):
                raise ValueError(
                    f"There is no folder {folder}. Pass --dataset_path, the folder "
                    "tfrecord that data_preprocessing/create_datasets_from_start.sh "
                    "makes."
                )


def run_stage(stage: Stage) -> int:
    """Runs a command, with its output on the screen and in its log.

    Returns:
      Its exit code.
    """
    if not stage.log:
        return subprocess.run(stage.command).returncode
    pathlib.Path(stage.log).parent.mkdir(parents=True, exist_ok=True)
    with (
        open(stage.log, "ab") as log,
        subprocess.Popen(
            stage.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        # The launcher, or the script, ends by itself after Ctrl-C.
        while True:
            try:
                for line in process.stdout:
                    log.write(line)
                    sys.stdout.buffer.write(line)
                    sys.stdout.flush()
                return process.wait()
            except KeyboardInterrupt:
                continue


def main(arguments: list[str]) -> int:
    """Runs a demo.

    Args:
      arguments: The command line after the program's name.

    Returns:
      0, or the exit code of the command that failed.
    """
    try:
        options = parse(arguments)
        found = stages(options, os.environ)
        if not options.dry_run:
            check_records(options, found)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if names := without_effect(options):
        print(f"warning: no effect here: {' '.join(names)}", flush=True)
    for stage in found:
        if stage.output and os.path.exists(stage.output):
            print(f"{stage.title}: {stage.output} is there.", flush=True)
            continue
        print(f"{stage.title}: {shlex.join(stage.command)}", flush=True)
        if options.dry_run:
            continue
        if code := run_stage(stage):
            print(
                f"error: {stage.title} failed with exit code {code}: see above.",
                file=sys.stderr,
            )
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
