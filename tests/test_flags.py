import subprocess
import sys
import time

import pytest
from conftest import ROOT

from bert_tf import flags
from bert_tf.config import PretrainingConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.flag_names import OFTEN_USED

SCRIPT = ROOT / "run_pretraining.py"
BASE = ["run", "--output_dir=/o", "--preset=tiny", "--do_train", "--input_files_dir=/i"]

# The flags of the published single-card and 8-card commands, phase 1 and 2.
PUBLISHED = """
    --input_files_dir=/data/seq_len_128/training
    --init_checkpoint=wwm/bert_model.ckpt --eval_files_dir=/data/seq_len_128/test
    --output_dir=/tmp/bert/phase_1 --bert_config_file=wwm/bert_config.json
    --do_train=True --do_eval=False --train_batch_size=64 --eval_batch_size=8
    --max_seq_length=128 --max_predictions_per_seq=20 --num_train_steps=7038
    --num_accumulation_steps=128 --num_warmup_steps=2000 --save_checkpoints_steps=100
    --learning_rate=0.00075 --horovod --noamp --nouse_xla
    --allreduce_post_accumulation=True --dllog_path=/tmp/bert_dllog.json
    --enable_scoped_allocator=False --resume=False
"""


def parse(*arguments):
    return flags.parse(PretrainingConfig, [*BASE, *arguments])


def test_published_command_is_understood():
    config = flags.parse(PretrainingConfig, ["run", *PUBLISHED.split()])
    assert config.files.init_checkpoint == "wwm/bert_model.ckpt"
    assert config.batch.num_accumulation_steps == 128
    assert config.optimizer.learning_rate == 0.00075
    assert config.optimizer.warmup_steps == 2000
    assert config.optimizer.power == 0.5
    assert config.runtime.horovod
    assert not config.training.do_eval


def test_values_have_the_types_of_their_fields():
    config = parse(
        "--exclude_from_weight_decay=a,b",
        "--beta_1=0.87",
        "--nodo_eval",
        "--noscale_learning_rate",
    )
    assert config.optimizer.exclude_from_weight_decay == ("a", "b")
    assert config.optimizer.beta_1 == 0.87
    assert config.training.do_eval is False
    assert config.optimizer.scale_learning_rate is False


def test_a_value_after_a_boolean_flag_and_a_space_is_refused_with_the_form():
    for value in ("true", "False"):
        with pytest.raises(flags.FlagError, match="follows =, as in --do_eval=true"):
            parse("--do_eval", value, "--seed=1")
    with pytest.raises(flags.FlagError, match="must be a flag") as caught:
        parse("--seed", "1", "true")
    assert "follows" not in str(caught.value)


def test_every_flag_is_explained():
    text = flags.help_text(PretrainingConfig)
    names = set(flags.make_flags(PretrainingConfig))
    assert len(names) > 50
    for name in names:
        assert f"--{name}" in text


@pytest.mark.parametrize("config_class", [PretrainingConfig, SquadConfig])
def test_short_help_has_the_flags_that_runs_need(config_class):
    text, full = (flags.help_text(config_class, full=full) for full in (False, True))
    assert len(text.splitlines()) < 75 < len(full.splitlines())
    assert "--output_dir=DIR (*)" in text and "--output_dir=DIR (*)" in full
    assert "--num_train_steps" in text and "--beta_1" not in text
    assert max(map(len, full.splitlines())) <= 88


def test_often_used_flags_exist():
    known = [set(flags.make_flags(c)) for c in (PretrainingConfig, SquadConfig)]
    known.append(set(flags.make_flags(ClassifierConfig)))
    assert OFTEN_USED <= set().union(*known)


@pytest.mark.parametrize("flag", ["--horovod", "--use_horovod", "--use_horovod=true"])
def test_use_horovod_is_the_same_flag(flag):
    assert parse(flag).runtime.horovod


@pytest.mark.parametrize(
    "alias, group, name, value",
    [
        ("--max_steps=7", "optimizer", "num_train_steps", 7),
        ("--opt_lamb_beta_1=0.66", "optimizer", "beta_1", 0.66),
        ("--opt_lamb_beta_2=0.998", "optimizer", "beta_2", 0.998),
        ("--eval_dir=/e", "files", "eval_files_dir", "/e"),
        ("--checkpoint_activations", "runtime", "recompute", True),
        ("--input_dir=/i", "files", "input_files_dir", "/i"),
        ("--input_file=/i", "files", "input_files_dir", "/i"),
        ("--weight_decay_rate=0.1", "optimizer", "weight_decay_rate", 0.1),
        ("--warmup_steps=7", "optimizer", "warmup_steps", 7),
        ("--warmup_proportion=0.01", "optimizer", "warmup_steps", 1000),
        ("--warmup_proportion=0", "optimizer", "warmup_steps", 0),
        ("--start_warmup_step=-25", "optimizer", "start_warmup_step", -25),
        ("--log_freq=7", "training", "display_loss_steps", 7),
        ("--log_freq=-1", "training", "display_loss_steps", -1),
        ("--keep_n_most_recent_checkpoints=7", "files", "keep_checkpoint_max", 7),
    ],
)
def test_names_of_the_pytorch_trainers(alias, group, name, value):
    assert getattr(getattr(parse(alias), group), name) == value


def test_two_spellings_of_a_setting_may_agree():
    config = parse("--warmup_steps=5", "--num_warmup_steps=5")
    assert config.optimizer.num_warmup_steps == 5
    config = parse("--warmup_steps=0", "--warmup_proportion=0.0")  # As Intel's scripts.
    assert config.optimizer.warmup_steps == 0


def test_a_value_that_looks_like_another_name_of_a_flag_is_a_value():
    config = parse("--init_checkpoint", "--max_steps=7", "--log_freq", "5")
    assert config.files.init_checkpoint == "--max_steps=7"
    assert config.training.display_loss_steps == 5
    config = parse("--checkpoint_activations", "--max_steps", "7")
    assert config.runtime.recompute and config.optimizer.num_train_steps == 7


def test_two_other_names_of_a_flag_must_agree():
    names = ["--input_dir=/a", "--input_file=/b"]
    with pytest.raises(flags.FlagError, match="`input_dir` and `input_file`"):
        flags.parse(PretrainingConfig, [*BASE[:-1], *names])


def test_dataset_path_is_the_folder_of_squad_s_files():
    arguments = [*BASE[:4], "--do_predict", "--dataset_path=/s"]
    squad = flags.parse(SquadConfig, arguments).squad
    assert (squad.train_path, squad.predict_path) == (
        "/s/train-v1.1.json",
        "/s/dev-v1.1.json",
    )
    more = ("--version_2_with_negative", "--predict_file=/p")
    squad = flags.parse(SquadConfig, [*arguments, *more]).squad
    assert (squad.train_path, squad.predict_path) == ("/s/train-v2.0.json", "/p")


def test_whole_numbers_may_have_a_point_and_a_line_says_so(capsys):
    """As in the published scripts of MLPerf's trainers."""
    written = ["--warmup_steps=0.0", "--train_batch_size=32.", "--seed=2e3"]
    optimizer = parse(*written).optimizer
    assert optimizer.num_warmup_steps == 0
    assert isinstance(optimizer.num_warmup_steps, int)
    assert parse(*written).batch.train_batch_size == 32
    assert parse(*written).training.seed == 2000
    flags.warn_about_values(PretrainingConfig, [*BASE, *written, "--max_steps=9"])
    [line] = capsys.readouterr().out.splitlines()
    prefix = "warning: read as whole numbers: "
    assert line.startswith(prefix)
    assert {*line.removeprefix(prefix).split()} == {*written}


def test_fine_tuning_has_the_same_rule():
    words = ["run", "--output_dir=/o", "--do_train", "--train_file=/t"]
    config = flags.parse(SquadConfig, [*words, "--num_train_steps=100.0"])
    assert config.optimizer.num_train_steps == 100
    with pytest.raises(ValueError, match="num_train_steps=0.5: must be a whole number"):
        flags.parse(SquadConfig, [*words, "--num_train_steps=0.5"])


def test_flags_without_effect_are_named_once(capsys):
    flags.warn_about_ignored_flags(
        [*BASE, "--manual_fp16", "--noreport_loss", "--save_summary_steps=4"]
    )
    [line] = capsys.readouterr().err.splitlines()
    assert "--manual_fp16" in line
    assert "--save_summary_steps" in line
    assert "report_loss" not in line


def test_turning_off_what_is_off_prints_nothing(capsys):
    flags.warn_about_ignored_flags(
        [*BASE, "--nomanual_fp16", "--enable_scoped_allocator=False"]
    )
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (
            ["--lerning_rate=1"],
            "Unknown flag --lerning_rate. Did you mean --learning_rate?",
        ),
        (
            ["--use_habana", "--seed=1", "--noconverged", "--bogus=2", "--bogus=3"],
            "Unknown flag --use_habana.* Also unknown: --bogus, --noconverged. ",
        ),
        (["--train_batch_size=many"], "train_batch_size=many: must be a whole number"),
        (["--train_batch_size=4.5"], "train_batch_size=4.5: must be a whole number"),
        (["--seed=1e300"], "seed=1e300: must be a whole number"),
        (["--max_steps=inf"], "max_steps=inf: must be a whole number"),
        (["--train_batch_size=0"], "`train_batch_size` must be greater than 0.*=0"),
        (["--do_train=perhaps"], "do_train"),
        (["more"], "must be a flag.*'more'"),
        (["--preset=huge"], "`preset` must be one of tiny"),
        (["--preset=bsae"], "Received: preset='bsae'. Did you mean base?"),
        (["--train-batch-size=4"], "Did you mean --train_batch_size?"),
        (["--tracker=wandbb"], "tracker='wandbb'. Did you mean wandb?"),
        (["--allow_config_change=dta"], "Did you mean data?"),
        (["--" + "x" * 9999], "Unknown flag"),
        (["--bert_config_file=/c"], "`bert_config_file` and `preset`"),
        (["--resume"], "`resume` needs `init_checkpoint`"),
        (["--nodo_train"], "At least one of `do_train` and `do_eval`"),
        (["--do_eval"], "`eval_files_dir` must be given with `do_eval`"),
        (["--horovod", "--nouse_horovod"], "the same flag"),
        (["--precision=fp32", "--bf16_config_path=/p"], "must agree"),
        (
            ["--max_steps=50", "--num_train_steps=60"],
            "max_steps=50, num_train_steps=60",
        ),
        (
            ["--log_freq=1", "--display_loss_steps=2"],
            "log_freq=1, display_loss_steps=2",
        ),
        (
            ["--warmup_steps=0", "--warmup_proportion=0.01", "--max_steps=200"],
            "num_warmup_steps=0, warmup_proportion=0.01, which is 2",
        ),
        (["--warmup_proportion=1"], r"`warmup_proportion` must be in \[0, 1\)"),
        (
            ["--max_steps=50", "--warmup_steps=20", "--start_warmup_step=30"],
            "`start_warmup_step` must be at most 29",
        ),
        (["--num_samples_per_checkpoint=0"], "`num_samples_per_checkpoint` must be"),
        (["--export_steps=0,1k"], "`export_steps` must list steps"),
        (["--export_steps=6", "--max_steps=5"], "at most num_train_steps=5"),
        (["--benchmark", "--steps_this_run=9"], "`steps_this_run` must not be given"),
        (
            ["--benchmark", "--nodo_train", "--do_eval", "--eval_files_dir=/e"],
            "`benchmark` must come with `do_train`",
        ),
        (["--precision=fp8"], "`precision` must be one of fp32, avx-fp32"),
        (["--num_train_steps=5", "--num_warmup_steps=5"], "less than num_train_steps"),
        (
            ["--horovod_hierarchical_allreduce"],
            "`horovod_hierarchical_allreduce` needs `horovod`",
        ),
        (["--shard_optimizer"], "`shard_optimizer` needs `horovod`"),
        (
            ["--shard_optimizer", "--horovod", "--noallreduce_post_accumulation"],
            "`allreduce_post_accumulation` must be true with `shard_optimizer`",
        ),
        (
            ["--horovod_compression=bf16"],
            "a type that Horovod does not reduce: MPI has none of that kind. Pass fp16",
        ),
        (["--beta_2=1"], r"`beta_2` must be in \[0, 1\)"),
        (["--optimizer_type=sgd"], "`optimizer_type` must be one of lamb"),
        (["--learning_rate=nan"], "`learning_rate` must be"),
        (["--seed=-1"], "`seed` must be at least 0"),
        (["--max_grad_norm=inf"], "`max_grad_norm` must be at least 0 and finite"),
        (["--learning_rate=inf"], "`learning_rate` must be greater than 0 and finite"),
        (["--profile=5"], "`profile` must be two steps X,Y"),
        (["--profile=5,4"], "`profile` must be two steps X,Y"),
        (["--precision=bf32", "--bf16_config_path=/p"], "must agree"),
    ],
)
def test_wrong_flags_are_refused(arguments, pattern):
    with pytest.raises(ValueError, match=pattern):
        parse(*arguments)


def run(*arguments, env=None):
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
    )
    seconds = time.perf_counter() - started
    lines = result.stderr.splitlines()
    loads_tensorflow = any(" tensorflow" in line for line in lines)
    errors = [line for line in lines if not line.startswith("import time:")]
    return result, errors, loads_tensorflow, seconds


def test_wrong_flag_ends_in_one_line_before_tensorflow_is_loaded():
    result, errors, loads_tensorflow, seconds = run(*BASE[1:], "--train_batch_size=0")
    assert result.returncode == 1
    assert len(errors) == 1
    assert errors[0].startswith("error: `train_batch_size` must be greater than 0")
    assert not loads_tensorflow
    assert seconds < 2


def test_help_is_printed_without_tensorflow():
    result, _, loads_tensorflow, _ = run("--help")
    assert result.returncode == 0
    assert "--train_batch_size=N [32]" in result.stdout
    assert not loads_tensorflow


def test_several_processes_without_horovod_are_refused():
    import os

    env = os.environ | {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}
    result, errors, _, _ = run(*BASE[1:], env=env)
    assert result.returncode == 1
    [line] = errors
    assert "4 processes were launched but `horovod` is not set" in line


def test_a_fine_tuning_that_saves_nothing_keeps_no_best_checkpoint():
    command = ["run", "--task_name=mrpc", "--data_dir=data", "--output_dir=out"]
    more = ["--do_train", "--do_eval", "--evaluate_each_epoch", "--skip_checkpoint"]
    with pytest.raises(ValueError, match="`skip_checkpoint` must not be given with"):
        flags.parse(ClassifierConfig, [*command, *more])
