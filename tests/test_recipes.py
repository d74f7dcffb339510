"""Recipes have the published values, and --flagfile reads them as absl does."""

import re

import pytest

from bert_tf import entry, flags, recipes
from bert_tf.cli.train import JOBS
from bert_tf.config import PRESETS

# What no recipe has: a user's paths.
PATHS = {
    "pretrain": ("--input_files_dir=<records>", "--output_dir=<run>"),
    "squad": (
        "--data_dir=<squad>",
        "--init_checkpoint=<weights>",
        "--output_dir=<run>",
    ),
    "classify": ("--data_dir=<mrpc>", "--init_checkpoint=<weights>", "--output_dir=o"),
}
PATHS["pretrain"] += ("--eval_files_dir=<records>", "--init_checkpoint=<weights>")

# Habana's README, BERT for TensorFlow 1.6.1: commands of one card, of 8 and of 32. Its
# demo_bert.py has the same values for each size of the model.
PHASE_1 = dict(
    train_batch_size=64,
    eval_batch_size=8,
    max_seq_length=128,
    max_predictions_per_seq=20,
    num_train_steps=7038,
    num_accumulation_steps=1024,
    num_warmup_steps=2000,
    save_checkpoints_steps=100,
    learning_rate=0.006,
    allreduce_post_accumulation=True,
    do_train=True,
    do_eval=False,
    optimizer_type="lamb",
    precision="bf16",
    horovod=False,
)
PHASE_2 = PHASE_1 | dict(
    train_batch_size=8,
    max_seq_length=512,
    max_predictions_per_seq=80,
    num_train_steps=1564,
    num_accumulation_steps=4096,
    num_warmup_steps=200,
    learning_rate=0.004,
)
SQUAD = dict(
    do_train=True,
    do_predict=True,
    do_eval=True,
    train_batch_size=24,
    learning_rate=2e-5,
    num_train_epochs=2,
    max_seq_length=384,
    doc_stride=128,
    version_2_with_negative=False,
    optimizer_type="adam",
    precision="bf16",
)
MRPC = dict(
    task_name="MRPC",
    do_train=True,
    do_eval=True,
    max_seq_length=128,
    train_batch_size=64,
    learning_rate=2e-5,
    num_train_epochs=3,
    optimizer_type="adam",
    precision="bf16",
)
WORKERS_8 = dict(horovod=True, num_accumulation_steps=128, learning_rate=0.00075)
WORKERS_32 = dict(horovod=True, num_accumulation_steps=32, learning_rate=0.0001875)
PHASE_2_WORKERS_8 = dict(horovod=True, num_accumulation_steps=512, learning_rate=5e-4)
PUBLISHED = {
    ("phase1_base",): PHASE_1 | dict(preset="base"),
    ("phase1_large",): PHASE_1 | dict(preset="large"),
    ("phase1_large", "phase1_8_workers"): PHASE_1 | WORKERS_8,
    ("phase1_base", "phase1_32_workers"): PHASE_1 | WORKERS_32,
    ("phase2_base",): PHASE_2 | dict(preset="base"),
    ("phase2_large",): PHASE_2 | dict(preset="large"),
    ("phase2_large", "phase2_8_workers"): PHASE_2 | PHASE_2_WORKERS_8,
    ("squad_base",): SQUAD,
    ("squad_large",): SQUAD,
    ("mrpc_base",): MRPC,
    ("mrpc_large",): MRPC,
    # Cambricon's README, BERT MLU Implementation: Training Parameters; its script has 4
    # workers.
    ("squad_base_cased",): dict(
        learning_rate=3e-5,
        train_batch_size=4,
        epsilon=1e-6,
        weight_decay_rate=0.01,
        num_train_epochs=2,
        precision="fp32",
        horovod=True,
    ),
    # Intel's run_bert_pretrain_phase1.sh for PyTorch.
    ("phase1_large_intel",): dict(
        train_batch_size=224,
        learning_rate=3.5e-4,
        num_train_steps=13700,
        num_warmup_steps=0,
        max_seq_length=128,
        poly_power=1.0,
        scale_learning_rate=False,
        preset="large",
    ),
    # Iluvatar's run_1card_FPS.sh for TensorFlow; the batch is that of its README.
    ("mlperf_large_iluvatar",): dict(
        train_batch_size=6,
        max_seq_length=512,
        max_predictions_per_seq=76,
        num_train_steps=13206,
        num_accumulation_steps=1,
        num_warmup_steps=0,
        learning_rate=5e-5,
        do_train=True,
        do_eval=False,
    ),
}


def parse(*names, more=()):
    command = recipes.summary(names[0]).partition(":")[0]
    files = [f"--flagfile={name}" for name in names]
    arguments = ["run", *files, *PATHS[command], *more]
    return flags.parse(JOBS[command][0], arguments)


def settings(config):
    """All settings by name; each is in one group."""
    return {k: v for group in vars(config).values() for k, v in vars(group).items()}


@pytest.mark.parametrize("names", PUBLISHED, ids="+".join)
def test_a_recipe_has_the_published_values(names):
    expected = PUBLISHED[names]
    found = settings(parse(*names))
    assert {name: found[name] for name in expected} == expected


def test_every_recipe_is_compared_with_what_is_published():
    assert {name for names in PUBLISHED for name in names} == set(recipes.names())


def test_sequences_of_a_step_and_rate_do_not_depend_on_the_workers():
    for phase, sequences, rate in ((1, 65_536, 0.006), (2, 32_768, 0.004)):
        for workers in (1, 8, 32)[: 4 - phase]:
            more = (f"phase{phase}_{workers}_workers",) * (workers > 1)
            found = settings(parse(f"phase{phase}_large", *more))
            rows = found["train_batch_size"] * found["num_accumulation_steps"]
            assert rows * workers == sequences
            assert found["learning_rate"] * workers == pytest.approx(rate, rel=1e-12)


def test_presets_are_the_published_sizes():
    base, large = PRESETS["base"], PRESETS["large"]
    assert (base.num_hidden_layers, base.hidden_size) == (12, 768)
    assert (large.num_hidden_layers, large.hidden_size) == (24, 1024)


def test_flags_after_a_recipe_replace_its_own_without_a_warning(capsys):
    more = ["--num_train_steps=5000"]
    config = parse("phase1_base", more=more)
    assert config.optimizer.num_train_steps == 5000
    arguments = ["run", "--flagfile=phase1_base", *PATHS["pretrain"], *more]
    flags.warn_about_values(type(config), arguments)
    flags.warn_about_ignored_flags(arguments)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "names, more, expected",
    [
        (("phase1_large",), ["--warmup_steps=5"], {"num_warmup_steps": 5}),
        (("phase1_large",), ["--max_steps", "2010"], {"num_train_steps": 2010}),
        (
            ("phase1_large", "phase1_8_workers"),
            ["--use_horovod=false"],
            {"horovod": False},
        ),
        (("phase1_large", "phase1_8_workers"), ["--nouse_horovod"], {"horovod": False}),
    ],
)
def test_another_name_of_a_flag_replaces_a_recipe_s_line(names, more, expected):
    found = settings(parse(*names, more=more))
    assert {name: found[name] for name in expected} == expected


def test_a_line_of_a_file_replaces_another_name_of_a_recipe_in_it(tmp_path):
    mine = tmp_path / "mine.flags"
    mine.write_text(
        "--flagfile=phase1_large\n--warmup_steps=5\n--keep_n_most_recent_c"
        "heckpoints=3\n"
    )
    command = ["run", f"--flagfile={mine}", *PATHS["pretrain"]]
    config = flags.parse(JOBS["pretrain"][0], command)
    assert config.optimizer.num_warmup_steps == 5
    assert config.files.keep_checkpoint_max == 3
    assert not flags.replaced_flags(type(config), command)


def test_two_names_of_a_flag_around_a_recipe_must_agree():
    words = ["run", "--max_steps=10", "--flagfile=phase1_large", "--num_train_steps=20"]
    with pytest.raises(flags.FlagError, match="max_steps=10, num_train_steps=20"):
        flags.parse(JOBS["pretrain"][0], [*words, *PATHS["pretrain"]])


@pytest.mark.parametrize(
    "words, named",
    [
        (
            ["--learning_rate=1e-9", "--flagfile=phase1_large"],
            ["--learning_rate=0.006"],
        ),
        (
            ["--warmup_steps", "5", "--flagfile=phase1_large"],
            ["--num_warmup_steps=2000"],
        ),
        (
            ["--flagfile=phase1_8_workers", "--flagfile=phase1_large"],
            ["--num_accumulation_steps=1024", "--learning_rate=0.006"],
        ),
        (["--learning_rate=6e-3", "--flagfile=phase1_large"], []),
        (["--flagfile=phase1_large", "--learning_rate=1e-9", "--max_steps=9"], []),
    ],
)
def test_flags_that_a_later_file_replaces_are_named(words, named, capsys):
    flags.warn_about_values(JOBS["pretrain"][0], ["run", *words])
    output = capsys.readouterr().out
    assert sorted(output.split(": ")[-1].split()) == sorted(named)
    assert output.count("a later --flagfile") == bool(named)


def test_a_missing_file_is_not_the_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "phase1_large.flags", "./phase1_large", "a/phase1_large"):
        with pytest.raises(FileNotFoundError, match="Did you mean phase1_large?"):
            recipes.expand(["run", f"--flagfile={name}"])
    by_name = recipes.expand(["run", "--flagfile=phase1_large.flags"])
    assert by_name == recipes.expand(["run", "--flagfile=phase1_large"])


def test_a_file_of_flags_has_comments_and_other_files(tmp_path):
    inner, outer = tmp_path / "inner.txt", tmp_path / "outer.txt"
    inner.write_text("--learning_rate=0.5\n")
    outer.write_text(f"# a\n// b\n\n  --do_train\n--flagfile={inner}\n--seed=3\n")
    words = ["run", "--flagfile", str(outer), "--seed=4"]
    assert recipes.expand(words) == [
        *("run", "--do_train", "--learning_rate=0.5", "--seed=3", "--seed=4")
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("do_train", "line 1: must be a flag, --name=value, or a comment.*'do_train'"),
        ("--do_train\n--seed 3", "line 2: must be a flag"),
        ("--flagfile=flags.txt", "names itself"),
        ('\n--output_dir="a b"', "flags.txt, line 2: the value must have no quotes"),
        ("--output_dir='a'", "line 1: the value must have no quotes"),
        ("--output_dir=a  # my run", "no comment after it.*'--output_dir=a  # my run'"),
        ("--lerning_rate=1", "Did you mean --learning_rate?"),
        (
            "# a\n--flagfile=phase1_larg",
            "^flags.txt, line 2: `flagfile`.*Did you mean phase1_large?",
        ),
        ("--flagfile=", "must be a file with a flag on each line"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_wrong_files_of_flags_are_refused(tmp_path, monkeypatch, text, message):
    (tmp_path / "flags.txt").write_text(text, errors="surrogateescape")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        flags.parse(JOBS["pretrain"][0], ["run", "--flagfile=flags.txt"])


@pytest.mark.parametrize(
    "text, more, message",
    [
        ("# a\n--seed=1\n--do_predict", [], "flags.txt, line 3: Unknown flag --do_p"),
        ("--seed=1", ["--lerning_rate=1"], "Unknown flag --lerning_rate"),
        ("--flagfile=squad_base", [], "squad_base.flags, line 4: Unknown flag --do_p"),
        ("\n--seed=1.5\n--seed=2", [], "flags.txt, line 2: flag --seed=1.5: must be"),
        ("--do_train=maybe", [], "flags.txt, line 1: flag --do_train=maybe:"),
        ("--seed=1\n--seed=-5", [], "flags.txt, line 2: `seed` must"),
        ("--do_eval\n--eval_dir=/no", [], "flags.txt, line 2: `eval_files_dir` must"),
        ("--vocab_file=/no", [], "flags.txt, line 1: `vocab_file` must"),
        ("--seed=1", ["--seed=-5"], "`seed` must"),
    ],
)
def test_a_wrong_flag_or_value_of_a_file_is_named_with_its_line(
    tmp_path, monkeypatch, capsys, text, more, message
):
    (tmp_path / "flags.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    given = ["--output_dir=out", "--preset=tiny", "--input_files_dir=.", "--do_train"]
    command = ["run", *given, "--flagfile=flags.txt", *more]
    assert entry.run_script(JOBS["pretrain"][0], "pretraining", command) == 1
    assert re.match(rf"error: (/\S+/)?{message}", capsys.readouterr().err)
