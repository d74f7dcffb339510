"""A start deletes files of our own names, and none of a user's."""

import os

import runs
from faults.counts import count
from runs import pretraining_flags

OWN = [
    ".checkpoint.0123abcd.bert_tf.tmp",
    ".model.ckpt-9.0123abcd.bert_tf.tmp/model.ckpt-9.index",
    "model.ckpt-9.tmp.data-00000-of-00001.tempstate5",
    "model.ckpt-9.incomplete",
]
USERS = [
    "model.ckpt-900.tmp_mine.txt",
    "model.ckpt-900.tmp.mine",
    "model.ckpt-900.txt",
    "model.ckpt-900.data-mine",
    "model.ckpt-900.index.bak",
    "xmodel.ckpt-900.index",
    "model.ckpt-0900.index",
    "checkpoint.tmp",
    "checkpoint_mine_01.tmp",
    "checkpoint~",
    ".checkpoint.mine0001.tmp",
    ".checkpoint.0123abcd.bert_tf.tmp.txt",
    ".checkpoint.0123ABCD.bert_tf.tmp",
    ".a.bert_tf.tmp",
    ".model.ckpt-9.bert_tf.committed.txt",
    ".model.ckpt-x.bert_tf.removed",
    "notes.tmp",
    "tmp",
    "run.partial/notes.txt",
    "model.ckpt-900.tmp/notes.txt",
    "damaged/model.ckpt-900.index",
]


def test_files_that_a_user_has_put_beside_a_run_stay(
    tiny_config_file, tiny_records, tmp_path, figure
):
    folders = [tmp_path, tmp_path / "best", tmp_path / ".record_index"]
    folders = folders[: count(2, 3)]
    for folder in folders:
        for name in USERS + OWN * (folder.name != ".record_index"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("" if name in OWN else name)
    command = pretraining_flags(tiny_config_file, tiny_records, tmp_path, steps=2)
    runs.run("pretraining", *command, "--save_checkpoints_steps=1")
    runs.run("pretraining", *command, "--overwrite_output_dir")
    stayed = [
        (folder / name).is_file() and (folder / name).read_text() == name
        for folder in folders
        for name in USERS
    ]
    figure("a user's files next to ours stay", sum(stayed), len(stayed))
    for folder in folders:
        assert not [name for name in OWN if os.path.exists(folder / name)]
