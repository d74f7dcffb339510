import signal
import subprocess
import sys
import time

import pytest

from bert_tf.cli import main
from bert_tf.cli.arguments import parse_config
from bert_tf.config.data import CreateDataConfig, ShowDataConfig

REQUIRED = ["--input=i", "--output_dir=o", "--vocab_file=v"]


def parse(*arguments):
    return parse_config(CreateDataConfig, [*REQUIRED, *arguments], "create")


def test_options_without_values_are_the_defaults():
    assert parse() == CreateDataConfig(input="i", output_dir="o", vocab_file="v")


@pytest.mark.parametrize(
    ("arguments", "lower"),
    [
        (["--do_lower_case=false"], False),
        (["--do_lower_case", "False"], False),
        (["--nodo_lower_case"], False),
        (["--no-do-lower-case"], False),
        (["--do-lower-case=0"], False),
        (["--nodo_lower_case", "--do_lower_case"], True),
        (["--do_lower_case=TRUE"], True),
        (["--do_lower_case", "--seed", "3"], True),
    ],
)
def test_boolean_options_have_both_forms(arguments, lower):
    assert parse(*arguments).do_lower_case is lower


def test_dashes_are_as_good_as_underscores():
    config = parse("--max-seq-length", "64", "--masked_lm_prob=0.2")
    assert (config.max_seq_length, config.masked_lm_prob) == (64, 0.2)


def test_short_option_is_accepted():
    arguments = ["--input_dir=i", "--vocab_file=v", "-n", "7"]
    config = parse_config(ShowDataConfig, arguments, "", {"num_records": "-n"})
    assert config.num_records == 7


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as leaving:
        parse("--help")
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    for name, value in CreateDataConfig.__dataclass_fields__.items():
        assert f"--{name}" in text
        assert str(value.default).lower() in text.lower()


@pytest.fixture
def arguments(vocab_file, text_file, tmp_path):
    return [
        *("data", "create", "--input", text_file, "--vocab_file", vocab_file),
        *("--output_dir", str(tmp_path / "records"), "--max_seq_length=32"),
        "--num_processes=1",
    ]


def test_records_are_made_and_shown(arguments, vocab_file, tmp_path, capsys):
    assert main([*arguments, "--dupe_factor=1"]) == 0
    assert "records in 1 shards" in capsys.readouterr().out
    folder = str(tmp_path / "records")
    show = ["data", "show", "--input_dir", folder, "--vocab_file", vocab_file]
    assert main([*show, "-n", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("[CLS]") == 3
    assert "part-00000-of-00001.tfrecord, record 2" in shown


def test_text_is_split(text_file, tmp_path, capsys):
    folders = ["--train_dir", f"{tmp_path}/a", "--test_dir", f"{tmp_path}/b"]
    split = ["data", "split", "--input", text_file, *folders]
    assert main([*split, "--fraction_test_set=0.5"]) == 0
    assert "documents" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--max_seq_length=3"], "`max_seq_length` must be at least 8"),
        (["--max_seq_length=x"], "invalid int value: 'x'"),
        (["--masked_lm_prob=1.5"], "`masked_lm_prob` must be in [0, 1)"),
        (["--masked_lm_prob=nan"], "`masked_lm_prob` must be in [0, 1)"),
        (["--do_lower_case=perhaps"], "must be true or false, not 'perhaps'"),
        (["--max_seq=3"], "unrecognized arguments: --max_seq=3"),
        (["--input=/none"], "/none does not exist"),
        (["--input="], "`input` must be given"),
        (["--vocab_file=/none"], "vocab_file=/none"),
        (["--input_format=html"], "`input_format` must be one of google, text"),
        (["--num_shards=9999"], "`num_shards` must not be so great"),
        (["--output_dir=/dev/null"], "`output_dir` must be a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_1(arguments, wrong, message, capsys):
    assert main([*arguments, *wrong]) == 1
    lines = capsys.readouterr().err.splitlines()
    [error] = [line for line in lines if not line.startswith("done:")]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize("words", [["nothing"], ["data", "nothing"]])
def test_unknown_command_is_refused(words, capsys):
    assert main(words) == 1
    assert "must be one of" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["data"], ["data", "-h"]])
def test_commands_are_listed(words, capsys):
    assert main(words) == 0
    assert "usage:" in capsys.readouterr().out


def test_terminated_job_leaves_nothing_and_no_process(vocab_file, text_file, tmp_path):
    command = [
        *(sys.executable, "-m", "bert_tf", "data", "create", "--input", text_file),
        *("--vocab_file", vocab_file, "--output_dir", str(tmp_path / "o" / "records")),
        *("--dupe_factor=100000", "--num_processes=2"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "o").glob("records.partial/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    # Returns when the last worker has closed the stderr that it shares.
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list((tmp_path / "o").iterdir()) == []


def test_making_records_does_not_load_tensorflow():
    code = (
        "import sys, bert_tf.cli.data, bert_tf.data.create, bert_tf.data.split\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
