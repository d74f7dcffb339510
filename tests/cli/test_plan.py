"""The command `python -m bert_tf plan`, as its user sees it."""

import json
import pathlib
import re
import shlex

import pytest

from bert_tf import resources
from bert_tf.cli import main
from bert_tf.cli import plan as plan_command
from bert_tf.config import PRESETS
from bert_tf.jobs.run.memory import Rows, estimate_training

ROOT = pathlib.Path(__file__).parents[2]
LINKS = [
    "--local_latency_seconds=3e-6",
    "--local_bytes_per_second=3e11",
    "--network_latency_seconds=5e-6",
    "--network_bytes_per_second=2e11",
]
GPU = ["--throughput=485.59", "--memory_bytes_per_second=1.5e12", *LINKS]
GPU += ["--cores_per_host=128", "--gradient_bytes=2", "--start_seconds=0.001"]
LARGE = ["plan", "--preset=large", *GPU]
LINK_FILE = {
    "format": 1,
    "cores": 2,
    "allreduce": {
        "start_seconds": 0.004,
        "copy_seconds_per_byte": 2e-10,
        "latency_seconds": 1e-4,
        "seconds_per_byte": 5e-10,
    },
    "step": {
        "device_flops": 1e11,
        "update_seconds_per_number": 2e-9,
        "precision": "bf16",
        "train_batch_size": 32,
        "max_seq_length": 128,
        "max_predictions_per_seq": 20,
        "bert": PRESETS["tiny"].to_dict(),
    },
}


@pytest.fixture
def plan(capsys):
    """Runs the command with --json; returns what it prints."""

    def run(*arguments):
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(capsys):
    """Runs a command that fails; returns its line."""

    def run(*arguments):
        assert main(list(arguments)) == 1
        [line] = capsys.readouterr().err.splitlines()
        return line

    return run


@pytest.fixture
def link_file(tmp_path):
    """Writes a file as --measure does, with changes."""

    def write(content=LINK_FILE, **more):
        path = tmp_path / "link.json"
        path.write_text(json.dumps(content | more))
        return f"--link_file={path}"

    return write


def test_the_table_has_a_row_and_flags_for_each_number_of_workers(capsys):
    assert main([*LARGE, "--train_batch_size=64"]) == 0
    out = capsys.readouterr().out
    for workers in ("1", "8", "256", "1,024"):
        assert sum(line.split()[:1] == [workers] for line in out.splitlines()) == 2
    assert (
        "--train_batch_size=64 --num_accumulation_steps=1 "
        "--learning_rate=5.859375e-06 --num_train_steps=7038 --num_warmup_steps=2000"
    ) in out


def test_one_worker_takes_as_long_as_its_throughput_says(plan):
    [one] = plan(*LARGE, "--workers=1")["plans"]
    # 7,038 steps of 65,536 sequences; an update takes 8 ms.
    assert one["hours"] == pytest.approx(7038 * (65_536 / 485.59 + 0.008) / 3600, 1e-4)
    assert one["exposed_communication"] == 0.0


def test_the_second_phase_has_its_own_recipe(plan):
    found = plan(*LARGE, "--recipe=phase2", "--workers=8", "--train_batch_size=8")
    [eight] = found["plans"]
    # Habana's published command of phase 2 on eight cards.
    assert eight["flags"] == [
        "--train_batch_size=8",
        "--num_accumulation_steps=512",
        "--learning_rate=0.0005",
        "--num_train_steps=1564",
        "--num_warmup_steps=200",
    ]
    assert found["recipe"]["max_seq_length"] == 512


def test_flags_are_understood_by_the_training(plan):
    from bert_tf import flags
    from bert_tf.config import PretrainingConfig

    [each] = plan(*LARGE, "--workers=48", "--global_batch_size=65520")["plans"]
    given = ["--preset=large", "--output_dir=x", "--do_train", "--input_files_dir=y"]
    config = flags.parse(PretrainingConfig, ["run", *given, *each["flags"]])
    assert config.optimizer.learning_rate * 48 == pytest.approx(0.006, rel=1e-15)
    batch = config.batch.train_batch_size * config.batch.num_accumulation_steps
    assert batch * 48 == 65_520


def test_memory_is_that_of_the_first_worker(plan):
    [two] = plan(*LARGE, "--workers=2", "--precision=bf16")["plans"]
    rows, bert = Rows(32, 128, 20), PRESETS["large"]
    several = {"num_workers": 2, "saves": True}
    expected = estimate_training(bert, rows, fused_bytes=2, **several)
    assert two["memory_bytes"] == expected.total


def test_shards_update_a_part_and_send_weights_in_full(plan):
    flags = [*LARGE, "--workers=1,8", "--precision=bf16"]
    [one, plain] = plan(*flags)["plans"]
    [same, sharded] = plan(*flags, "--shard_optimizer")["plans"]
    assert one == same
    assert sharded["update_seconds"] == pytest.approx(plain["update_seconds"] / 8)
    # Gradients of 2 bytes go half the way, weights of 4 the other half.
    assert 1.3 < sharded["allreduce_seconds"] / plain["allreduce_seconds"] < 2.0
    assert plain["memory_bytes"] > sharded["memory_bytes"]
    assert "--shard_optimizer" in sharded["flags"]


def test_flops_replace_a_throughput(plan):
    arguments = [a for a in LARGE if not a.startswith("--throughput")]
    found = plan(*arguments, "--device_flops=2.406e14", "--workers=1")
    # 240.6 GFLOP a sequence.
    assert found["device"]["seconds_per_sequence"] == pytest.approx(1e-3, rel=1e-3)


def test_a_link_file_gives_links_and_the_speed_of_a_worker(plan, link_file):
    arguments = ["plan", "--preset=tiny", "--precision=bf16", "--workers=2"]
    found = plan(*arguments, link_file(), "--cores_per_host=2")
    [two] = found["plans"]
    num_bytes = 4 * 4_434_490 + 8  # The weights of tiny, and two counts.
    sums = 2 * (0.004 + 2 * 1e-4) + num_bytes * (2e-10 + 5e-10)
    assert two["allreduce_seconds"] == pytest.approx(sums, rel=2e-3)
    assert two["update_seconds"] == pytest.approx(4_434_490 * 2e-9, rel=2e-3)


def test_options_replace_what_was_measured(plan, link_file):
    arguments = ["plan", "--preset=tiny", *GPU, "--workers=2"]
    found = plan(*arguments, link_file())
    assert found["device"]["seconds_per_sequence"] == pytest.approx(1 / 485.59)
    assert found["cluster"]["local"]["seconds_per_byte"] == pytest.approx(1 / 3e11)


def test_steps_of_another_model_are_converted_with_a_line(plan, link_file):
    arguments = ["plan", "--precision=bf16", "--workers=1", link_file()]
    same = plan(*arguments, "--preset=tiny")
    assert not any("converted" in note for note in same["notes"])
    other = plan(*arguments, "--preset=mini", "--train_batch_size=8")
    [line] = [note for note in other["notes"] if "converted" in note]
    assert "another train_batch_size, bert, which is converted" in line
    seconds = other["device"]["seconds_per_sequence"]
    # 6 * 4 * (4 * 256^2 + 2 * 256 * 1024) * 128 + 12 * 4 * 256 * 128^2
    # + 6 * 20 * (256 * 30522 + 256^2) = 3.563 GFLOP, at 0.1 TFLOP/s.
    assert seconds == pytest.approx(0.03563, rel=1e-3)


def test_steps_of_another_precision_are_refused(refused, link_file):
    line = refused("plan", "--preset=tiny", "--workers=2", link_file())
    assert "precision='bf16'. Received: precision=fp32" in line


def test_a_link_file_that_cannot_be_written_is_refused_before_the_measurement(
    refused, tmp_path, monkeypatch
):
    monkeypatch.delattr(plan_command, "measure")
    (tmp_path / "file").touch()
    arguments = ["plan", "--preset=tiny", "--workers=2", "--measure"]
    for path, rule in ((tmp_path, "a file"), (tmp_path / "file/x.json", "a folder")):
        line = refused(*arguments, f"--link_file={path}")
        assert f"`link_file` must be {rule}" in line


@pytest.mark.parametrize(
    "more, message",
    [
        ({"format": 2}, "`format` must be 1. Received: 2"),
        ({"cores": 0}, "`cores` must be a number above 0. Received: 0"),
        ({"cores": True}, "`cores` must be a number above 0. Received: True"),
        ({"allreduce": [1]}, "`allreduce` must be an object"),
        ({"step": {"device_flops": 1.0}}, "`precision` must be there"),
        ({"allreduce": {}}, "`seconds_per_byte` must be a number of at least 0"),
        (
            {"allreduce": LINK_FILE["allreduce"] | {"latency_seconds": "1"}},
            "`latency_seconds` must be a number of at least 0. Received: '1'",
        ),
        (
            {"allreduce": LINK_FILE["allreduce"] | {"start_seconds": -1.0}},
            "`start_seconds` must be a number of at least 0. Received: -1.0",
        ),
        (
            {"step": LINK_FILE["step"] | {"device_flops": 0}},
            "`device_flops` must be a number above 0. Received: 0",
        ),
    ],
)
def test_a_wrong_link_file_is_refused_with_its_key(refused, link_file, more, message):
    arguments = ["plan", "--preset=tiny", "--precision=bf16", "--workers=2"]
    assert message in refused(*arguments, link_file(**more))


@pytest.mark.parametrize(
    "more, message",
    [
        (["--workers=3"], "Pass --workers=2, or another --global_batch_size."),
        (["--workers=0"], "`workers` must be up to 100 numbers"),
        (["--workers=1e3"], "`workers` must be up to 100 numbers"),
        (["--preset=huge"], "`preset` must be one of tiny"),
        (["--bert_config_file=x"], "`preset` must be given, or `bert_config_file`"),
        (["--throughput=nan"], "`throughput` must be greater than 0 and finite"),
        (["--device_flops=1"], "`device_flops` must not be given with `throughput`"),
        (["--gradient_bytes=3"], "`gradient_bytes` must be 2 or 4"),
        (["--sequences_per_record=0.9"], "`sequences_per_record` must be at least 1"),
        (["--max_seq_length=513"], "at most max_position_embeddings=512"),
        (["--max_predictions_per_seq=129"], "at most max_seq_length=128"),
        (["--num_train_steps=9", "--num_warmup_steps=9"], "num_warmup_steps=9."),
        (
            ["--num_train_steps=1000"],
            "num_warmup_steps=2000. That is the value of --recipe=phase1. Pass "
            "--num_warmup_steps=100.",
        ),
        (
            ["--recipe=phase2", "--max_seq_length=64"],
            "That is the value of --recipe=phase2. Pass --max_predictions_per_seq=9.",
        ),
        (["--measure"], "`link_file` must be given with `measure`"),
        (["--link_file=none.json"], "none.json cannot be read"),
    ],
)
def test_wrong_options_are_refused_in_one_line(refused, more, message):
    assert message in refused(*LARGE, *more)


def test_a_link_of_unknown_speed_is_refused(refused):
    arguments = ["plan", "--preset=tiny", "--throughput=1"]
    assert "between workers of a host" in refused(*arguments, "--workers=8")
    assert "between hosts" in refused(*arguments, *LINKS[:2], "--workers=16")


def test_typical_figures_of_a_link_are_offered_and_are_possible(refused, plan):
    arguments = ["plan", "--preset=tiny", "--throughput=1", "--workers=1,16"]
    line = refused(*arguments, *LINKS[:2])
    assert line.count("Typical of TCP over Ethernet, not measured here: ") == 2
    rates = re.findall(r"([\d.]+e\d+) (?:at|by)", line)
    limits = [1, 10, 25, 100, 100]  # Gbit/s
    assert len(rates) == len(limits)
    for rate, limit in zip(map(float, rates), limits, strict=True):
        # 1,448 of the 1,538 bytes of a frame are TCP's.
        assert 8 * rate <= limit * 1e9 * 1448 / 1538 * 1.02
    link = ["--network_latency_seconds=5e-5", f"--network_bytes_per_second={rates[0]}"]
    [_, two] = plan(*arguments, *LINKS[:2], *link)["plans"]
    assert two["hosts"] == 2


def test_half_a_link_is_refused(refused):
    line = refused("plan", "--preset=tiny", "--throughput=1", LINKS[0])
    assert "`local_bytes_per_second` must be given with" in line


def test_an_unknown_speed_is_refused(refused):
    line = refused("plan", "--preset=tiny", "--workers=1")
    assert "Pass --throughput" in line


def test_what_is_assumed_is_said(capsys, monkeypatch):
    monkeypatch.setattr(resources, "available_cores", lambda: 6)
    arguments = ["plan", "--preset=tiny", "--throughput=9", "--workers=1"]
    assert main([*arguments, "--train_batch_size=48", "--global_batch_size=64"]) == 0
    out = capsys.readouterr().out
    assert "A worker keeps 1 of its host's 6 cores busy." in out
    assert "--memory_bytes_per_second=2e+10" in out
    assert "micro-batches are smaller than 48 for 1 workers" in out
    assert "learning rate 0.006 is that of 65,536 sequences, not of 64" in out


def test_the_page_shows_what_the_command_prints(capsys):
    page = (ROOT / "docs" / "planning.md").read_text()
    block = re.search(r"```bash\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    command, shown = block.groups()
    words = shlex.split(command.replace("\\\n", " "))
    assert main(words[words.index("plan") :]) == 0
    assert shown in capsys.readouterr().out
