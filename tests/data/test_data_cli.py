import dataclasses
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from bert_tf.cli import main, pipeline
from bert_tf.cli.arguments import parse_config
from bert_tf.config.data import CreateDataConfig, ShowDataConfig
from bert_tf.data.records.metadata import read_metadata

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
        (["--do_lower_case=none"], None),
        ([], None),
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
    for field in dataclasses.fields(CreateDataConfig):
        assert f"--{field.name}" in text
        assert field.default is None or str(field.default).lower() in text.lower()
    assert text.count("Required.") == len(REQUIRED)


@pytest.fixture
def arguments(vocab_file, text_file, tmp_path):
    return [
        *("data", "create", "--input", text_file, "--vocab_file", vocab_file),
        *("--output_dir", str(tmp_path / "records"), "--max_seq_length=32"),
        "--num_processes=1",
    ]


def test_records_are_made_and_shown(arguments, vocab_file, tmp_path, capsys):
    assert main([*arguments, "--dupe_factor=1"]) == 0
    assert "records in 1 shard," in capsys.readouterr().out
    folder = str(tmp_path / "records")
    show = ["data", "show", "--input_dir", folder, "--vocab_file", vocab_file]
    assert main([*show, "-n", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("[CLS]") == 3
    assert "part-00000-of-00001.tfrecord, record 2" in shown


def test_text_is_sharded(text_file, tmp_path, capsys):
    shard = ["data", "shard", "--input", text_file, "--output_dir", f"{tmp_path}/a"]
    shard += ["--n_training_shards=2", "--n_test_shards=1", "--num_processes=1"]
    assert main([*shard, "--fraction_test_set=0.5"]) == 0
    assert "training-*.txt" in capsys.readouterr().out


STEPS = """
work_dir = "{folder}/work"
[extract]
input = "{folder}/in.json"
num_processes = 1
[sentences]
num_processes = 1
[shard]
n_training_shards = 2
n_test_shards = 1
fraction_test_set = 0.3
num_processes = 1
[vocab]
vocab_size = 200
num_processes = 1
[create]
max_seq_length = 32
do_whole_word_mask = true
max_ngram_size = 2
num_processes = 1
[pack]
num_processes = 1
"""


def test_all_commands_run_from_one_file_and_once(tmp_path, capsys):
    texts = [f"The cat {n} sat there. The dog {n} ran. It was so." for n in range(60)]
    (tmp_path / "in.json").write_text(json.dumps(texts))
    (tmp_path / "data.toml").write_text(STEPS.format(folder=tmp_path))
    assert main(["data", "all", "--config", str(tmp_path / "data.toml")]) == 0
    records = tmp_path / "work" / "pack"
    for side in ("training", "test"):
        assert read_metadata(records / side).packed
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    assert main(["data", "all", "--config", str(tmp_path / "data.toml")]) == 0
    for path, before in times.items():
        assert path.stat().st_mtime_ns == before, path
    assert len(times) == sum(p.is_file() for p in tmp_path.rglob("*"))


def test_advice_about_earlier_output_of_all_commands_works(tmp_path, capsys):
    texts = [f"The cat {n} sat there. The dog {n} ran. It was so." for n in range(60)]
    (tmp_path / "in.json").write_text(json.dumps(texts))
    settings = STEPS.format(folder=tmp_path).partition("[pack]")[0]
    path = tmp_path / "data.toml"
    path.write_text(settings)
    assert main(["data", "all", "--config", str(path)]) == 0
    changed = settings.replace("max_ngram_size = 2", "max_ngram_size = 3")
    path.write_text(changed)
    capsys.readouterr()
    assert main(["data", "all", "--config", str(path)]) == 1
    message = capsys.readouterr().err
    assert "It was made with max_ngram_size=2." in message
    assert f"Write `overwrite = true` into [create] of {path}" in message
    assert "--overwrite" not in message
    path.write_text(changed.replace("[create]", "[create]\noverwrite = true"))
    assert main(["data", "all", "--config", str(path)]) == 0
    folder = tmp_path / "work/create"
    for manifest in folder.glob("*_manifest.json"):
        assert json.loads(manifest.read_text())["settings"]["max_ngram_size"] == 3


def test_advice_on_an_option_of_all_commands_names_the_table(tmp_path, capsys):
    texts = [f"The cat {n} sat there. The dog {n} ran. It was so." for n in range(60)]
    (tmp_path / "in.json").write_text(json.dumps(texts))
    settings = STEPS.format(folder=tmp_path).partition("[pack]")[0]
    path = tmp_path / "data.toml"
    path.write_text(settings + "num_shards = 99999\n")
    assert main(["data", "all", "--config", str(path)]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"{path}, [create]: `num_shards` must leave no shard empty" in message
    assert message.endswith("smaller --num_shards. Options are keys of this table.")


def test_given_folders_are_those_of_the_next_command_and_keep_both_sides_apart():
    tables = {"extract": {"output_dir": "a"}, "sentences": {}, "shard": {}}
    tables |= {"create": {"input": "b", "output_dir": "c"}, "pack": {"output_dir": "d"}}
    found = list(pipeline.plan({"work_dir": "w", **tables}, "data.toml"))
    assert found == [
        ("extract", {"output_dir": "a"}),
        ("sentences", {"input": "a", "output_dir": "w/sentences"}),
        ("shard", {"input": "w/sentences", "output_dir": "w/shard"}),
        ("create", {"input": "b/training-*.txt", "output_dir": "c/training"}),
        ("pack", {"input_dir": "c/training", "output_dir": "d/training"}),
        ("create", {"input": "b/test-*.txt", "output_dir": "c/test"}),
        ("pack", {"input_dir": "c/test", "output_dir": "d/test"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x", "is not TOML"),
        ("[create]", "`work_dir` must be the path of a folder"),
        (
            'work_dir = "w"\n[creat]',
            "`creat` must be `work_dir` or the table of a command",
        ),
        (
            'work_dir = "w"\ncreate = 5',
            "`create` must be `work_dir` or the table of a command",
        ),
        ('work_dir = "w"\n[extract]\nouput = 5', "unrecognized arguments: --ouput=5"),
        ('work_dir = "w"\n[create]', "`vocab_file` must be given"),
        ('work_dir = "w"', "at least one command: extract, sentences"),
        ('work_dir = "w"\n[extract]\ninput = ["a"]', "`input` of [extract] must be"),
        (
            'work_dir = "w"\n[extract]\ninput = "/none"\n[pack]\nsed = 1',
            "unrecognized arguments: --sed=1",
        ),
    ],
)
def test_bad_file_of_commands_is_one_line(tmp_path, content, message, capsys):
    (tmp_path / "data.toml").write_text(content)
    assert main(["data", "all", "--config", str(tmp_path / "data.toml")]) == 1
    [error] = capsys.readouterr().err.splitlines()
    assert message in error


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("sentences", "[shard]: `input` must .*work/sentences, .* no [sentences]."),
        ("shard", "[vocab]: `input` must .*work/shard/training.* no [shard]."),
        ("create", "[pack]: `input_dir` must .*work/create/training.* no [create]."),
        ("vocab", "[create]: `vocab_file` must .*/no/vocab.txt.* no [vocab]."),
    ],
)
def test_a_table_that_is_left_out_is_named_before_the_first_command(
    tmp_path, left_out, message, capsys
):
    (tmp_path / "in.json").write_text('["It sat. It ran."]')
    content = re.sub(rf"\[{left_out}\][^[]*", "", STEPS)
    if left_out == "vocab":
        content = content.replace("[create]", '[create]\nvocab_file = "/no/vocab.txt"')
    (tmp_path / "data.toml").write_text(content.format(folder=tmp_path))
    assert main(["data", "all", "--config", str(tmp_path / "data.toml")]) == 1
    pattern = message.replace("[", r"\[").replace("]", r"\]")
    assert re.search(pattern, capsys.readouterr().err)
    assert not (tmp_path / "work").exists()


def test_missing_file_of_commands_is_one_line(capsys):
    assert main(["data", "all", "--config=/none"]) == 1
    assert "config=/none" in capsys.readouterr().err


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
        (["--num_shards=9999"], "`num_shards` must leave no shard empty"),
        (["--output_dir=/dev/null"], "`output_dir` must be a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_1(arguments, wrong, message, capsys):
    assert main([*arguments, *wrong]) == 1
    lines = capsys.readouterr().err.splitlines()
    # An option of `arguments` may be given twice.
    [error] = [line for line in lines if not line.startswith(("done:", "warning:"))]
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
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert list((tmp_path / "o").iterdir()) == []


def test_making_records_does_not_load_tensorflow():
    code = (
        "import sys, bert_tf.cli.data\n"
        "from bert_tf.data.commands import create, extract, sentences, shard, vocab\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_create_ends_with_a_summary_and_warnings(arguments, tmp_path, capsys):
    (tmp_path / "blank.txt").write_text("the cat sat .\n\n" * 20)
    assert main([*arguments, f"--input={tmp_path}/blank.txt", "--overwrite"]) == 0
    first = capsys.readouterr()
    assert "20 documents (95.0% repeated), 80 tokens (0.00% [UNK]" in first.out
    assert "(100.0%) have a random next segment" in first.err
    assert main([*arguments, f"--input={tmp_path}/blank.txt", "--overwrite"]) == 0
    again = capsys.readouterr()
    assert "exists already" in again.err
    assert again.out == first.out
    assert "(100.0%) have a random next segment" in again.err


def test_vocab_says_why_it_has_fewer_tokens_than_asked(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("the cat sat .\n" * 20)
    options = [f"--input={tmp_path}/text.txt", f"--output_dir={tmp_path}/vocab"]
    assert main(["data", "vocab", *options, "--vocab_size=2000"]) == 0
    line = capsys.readouterr().out
    assert "fewer than --vocab_size=2000: no other pieces occur" in line
