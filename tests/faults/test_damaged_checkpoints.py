"""Damage of any kind to a checkpoint is noticed, and the one before is used."""

import contextlib
import hashlib
import json
import os
import random
import shutil

import pytest
from faults.counts import count
from runs import assert_same_bytes, parse, pretraining_flags, read_tensors, run

from bert_tf.errors import RunError
from bert_tf.jobs.run.output_dir import take_output_dir
from bert_tf.jobs.run.starting_point import find_starting_point

STEPS = 6
ENDINGS = ("json", "index", "data-00000-of-00001")
WRONG_VALUES = {
    "step": (5, -6, 6.0, "6", None, True, 1 << 70),
    "records": (-1, 1.5, None, "96"),
    "global_batch_size": (0, -16, 16.5, []),
    "learning_rate": (-1.0, float("nan"), float("inf"), "fast", None),
    "seed": (-1, 0.5, "x"),
    "num_records": (-3, "150"),
    "loss_scale": (float("inf"), -2.0, "big"),
    "num_finite_steps": (-1, 2.5),
    "is_packed": (0, "no"),
    "data_sha256": (7, []),
    "config": ([], "x", None),
    "format": (0, 3, "2", None, 2.0),
    "files": ([], {}, None, "model.ckpt-6.index"),
    "more": (1,),
}


@pytest.fixture(scope="module")
def command(tiny_config_file, tiny_records):
    def make(folder, *more):
        return pretraining_flags(
            *(tiny_config_file, tiny_records, folder, "--save_checkpoints_steps=2"),
            *("--keep_checkpoint_max=9", *more),
            steps=STEPS + 2,
        )

    return make


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """A run with checkpoints of steps 2, 4 and 6, and the same one at its end."""
    folder = tmp_path_factory.mktemp("whole")
    run("pretraining", *command(folder / "stopped", f"--steps_this_run={STEPS}"))
    run("pretraining", *command(folder / "never_stopped"))
    return folder


def prefix(folder):
    return f"{folder}/model.ckpt-{STEPS}"


def cut(path, rng, _):
    os.truncate(path, rng.randrange(os.path.getsize(path)))


def flip(path, rng, _):
    with open(path, "r+b") as file:
        place = rng.randrange(os.path.getsize(path))
        file.seek(place)
        [byte] = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def miss(path, *_):
    os.remove(path)


def make_folder(path, rng, _):
    os.remove(path)
    os.mkdir(path)
    if rng.random() < 0.5:
        with open(f"{path}/mine", "w") as file:
            file.write("mine")


def make_pipe(path, *_):
    os.remove(path)
    os.mkfifo(path)


def link_to_itself(path, *_):
    os.remove(path)
    os.symlink(os.path.basename(path), path)  # To itself.


def zeros(path, *_):
    size = os.path.getsize(path)
    with open(path, "wb") as file:
        file.write(bytes(size))


def append(path, rng, _):
    with open(path, "ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 99)))


def take_of_another_step(path, *_):
    shutil.copy(path.replace(f"-{STEPS}.", "-4."), path)


def edit_value(path, rng, folder):
    """A value that cannot be: as found, without checksum, or with the right one."""
    name = rng.choice(sorted(WRONG_VALUES))
    value = rng.choice(WRONG_VALUES[name])
    change_manifest(folder, rng.randrange(3), {name: value})


def remove_value(path, rng, folder):
    # Manifests of earlier versions lack these.
    kept = {"data_sha256", "is_packed", "loss_scale", "num_finite_steps", "config"}
    kept.add("elapsed_seconds")
    form = rng.randrange(3)
    if form == 1:
        kept.add("fingerprint")  # Format 1 has none.
    names = [n for n in read_values(folder) if n not in (*kept, "sha256")]
    change_manifest(folder, form, without=rng.choice(names))


def edit_files(path, rng, folder):
    files = read_values(folder)["files"]
    name = rng.choice(sorted(files))
    more = rng.choice(["../secret", "/etc/passwd", "model.ckpt-4.index", "x", ""])
    changes = (
        {name: "0" * 64},
        {name: 5},
        {name: files[name].upper()},
        {more: files[name]},
    )
    changed = files | rng.choice(changes)
    if rng.random() < 0.3:
        changed = {other: x for other, x in files.items() if other != name}
    change_manifest(folder, rng.randrange(3), {"files": changed})


def read_values(folder):
    with open(f"{prefix(folder)}.json") as file:
        return json.load(file)


def change_manifest(folder, form, values=(), without=""):
    found = read_values(folder) | {"format": 1 if form == 1 else 2} | dict(values)
    found.pop(without, None)
    if form == 1:
        found.pop("sha256", None)
    if form == 2:
        found = {"sha256": "", **{n: x for n, x in found.items() if n != "sha256"}}
    text = json.dumps(found, indent=2) + "\n"
    if form == 2:
        digest = hashlib.sha256(text.encode()).hexdigest()
        text = text.replace('"sha256": ""', f'"sha256": "{digest}"', 1)
    with open(f"{prefix(folder)}.json", "w") as file:
        file.write(text)


def remove_two(path, rng, folder):
    for ending in rng.sample(ENDINGS, 2):
        os.remove(f"{prefix(folder)}.{ending}")


DAMAGE = (
    *(cut, flip, miss, make_folder, make_pipe, link_to_itself, zeros, append),
    *(take_of_another_step, edit_value, edit_value, edit_value, remove_value),
    *(edit_files, edit_files, remove_two),
)


def damage(folder, number):
    """One of the variants; the first ones are of each kind and file in turn."""
    rng = random.Random(number)
    change = DAMAGE[number % len(DAMAGE)]
    ending = ENDINGS[number // len(DAMAGE) % 3]
    change(f"{prefix(folder)}.{ending}", rng, folder)
    return f"{number}: {change.__name__} {ending}"


def resume(config):
    """What a training does before it builds a model: its start, and its lines."""
    with contextlib.ExitStack() as stack:
        lines = take_output_dir(config, stack)
        start = find_starting_point(config)
    return start, [*lines, *start.notes]


def test_damage_is_noticed_and_the_checkpoint_before_is_used(
    whole, command, tmp_path, figure
):
    number, right = count(20, 200), []
    for variant in range(number):
        folder = shutil.copytree(whole / "stopped", tmp_path / str(variant))
        what = damage(folder, variant)
        evaluation = parse(
            *("pretraining", *command(folder, "--nodo_train", "--do_eval")),
            f"--eval_files_dir={folder}",
        )
        evaluated = find_starting_point(evaluation)
        training = parse("pretraining", *command(folder))
        start, lines = resume(training)
        assert resume(training)[1] == [], what  # It has been moved.
        text = "\n".join(lines)
        right.append(
            start.position.step == evaluated.position.step == 4
            and f"model.ckpt-{STEPS}" in text
            and "model.ckpt-4" in text
            and "model.ckpt-6" in str(evaluated.notes)
            and len(lines) == 1
        )
        assert right[-1], f"{what}: {start} {lines}"
        left = os.listdir(folder)
        assert not [name for name in left if name.startswith(f"model.ckpt-{STEPS}")]
        shutil.rmtree(folder)
    figure("damaged checkpoint noticed, the one before used", sum(right), number)


def test_where_no_checkpoint_is_whole_nothing_starts(whole, command, tmp_path, figure):
    number, refused = count(5, 40), 0
    for variant in range(number):
        folder = shutil.copytree(whole / "stopped", tmp_path / str(variant))
        for step in (2, 4):
            os.truncate(folder / f"model.ckpt-{step}.index", 9)
        what = damage(folder, variant)
        before = sorted(os.listdir(folder))
        for more in ((), ("--nodo_train", "--do_eval", "--eval_files_dir=/a")):
            with pytest.raises((RunError, ValueError)) as caught:
                resume(parse("pretraining", *command(folder, *more)))
            message = str(caught.value)
            assert "\n" not in message, what
            assert all(f"model.ckpt-{step}" in message for step in (2, 4)), message
        assert sorted(os.listdir(folder)) == before
        refused += 1
    figure("no whole checkpoint: nothing starts, all are named", refused, number)


def test_a_run_resumed_from_the_checkpoint_before_ends_as_if_never_stopped(
    whole, command, tmp_path, capsys, figure
):
    number, equal = count(1, 8), 0
    for variant in range(number):
        folder = shutil.copytree(whole / "stopped", tmp_path / str(variant))
        damage(folder, 3 * variant)
        run("pretraining", *command(folder))
        assert "model.ckpt-4 (step 4)" in capsys.readouterr().out
        for step in (STEPS, STEPS + 2):
            ours, theirs = (
                read_tensors(x / f"model.ckpt-{step}")
                for x in (folder, whole / "never_stopped")
            )
            assert_same_bytes(ours, theirs)
        assert (folder / f"damaged-model.ckpt-{STEPS}").is_dir()
        equal += 1
    figure("damaged, resumed, equal to the run that never stopped", equal, number)


@pytest.mark.parametrize("content", ["folder", "pipe", b"", b"\xff\x00garbage", None])
def test_the_file_checkpoint_decides_nothing(whole, command, tmp_path, content):
    folder = shutil.copytree(whole / "stopped", tmp_path / "run")
    os.remove(folder / "checkpoint")
    if content == "folder":
        (folder / "checkpoint").mkdir()
    elif content == "pipe":
        os.mkfifo(folder / "checkpoint")
    elif content is not None:
        (folder / "checkpoint").write_bytes(content)
    start, lines = resume(parse("pretraining", *command(folder)))
    assert start.position.step == STEPS
    assert f'"model.ckpt-{STEPS}"' in (folder / "checkpoint").read_text()
    if content in ("folder", "pipe"):
        [line] = lines
        assert "must be a file, and is moved to" in line
