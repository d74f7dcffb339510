"""Which files of a folder of unfinished output are deleted, and which stay."""

import pytest

from bert_tf.data.commands.output_folder import RECORD_FILES, OutputFolder
from bert_tf.data.output_files import describe_file

NAME = "part-00000-of-00001.tfrecord"


@pytest.fixture
def make(tmp_path):
    """Makes an output folder with one setting."""
    (tmp_path / "input.txt").write_text("words")

    def output(setting):
        return OutputFolder(
            "create",
            str(tmp_path / "records"),
            RECORD_FILES,
            {"seed": setting},
            [tmp_path / "input.txt"],
        )

    return output


def leave_one_finished(output, *others):
    """A command that was stopped after its first file."""
    with output:
        assert output.begin(overwrite=False) is None
        (output.partial_dir / NAME).write_text("records")
        output.finish(describe_file(output.partial_dir / NAME))
        for name in others:
            (output.partial_dir / name).write_text("mine")


def names(output):
    return {path.name for path in output.partial_dir.iterdir()}


MINE = ("notes.txt", "part-00001.bak", ".stage.json.tmp", "mine.tmp", "x.npy")


@pytest.mark.parametrize("setting", [1, 2])
@pytest.mark.parametrize("name", MINE)
def test_a_user_s_file_among_unfinished_output_stays_and_is_named(make, setting, name):
    leave_one_finished(make(1), name)
    before = names(make(1))
    assert name in before
    with pytest.raises(FileExistsError, match=f"records.partial/{name}. Move it"):
        with make(setting) as output:
            output.begin(overwrite=True)
    assert names(make(1)) == before
    (make(1).partial_dir / name).unlink()  # As the message advises.
    with make(setting) as output:
        assert output.begin(overwrite=True) is None
        assert bool(output.finished(NAME)) == (setting == 1)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "a", "size": 1}'])
def test_a_file_is_made_again_where_what_is_known_of_it_is_damaged(make, content):
    leave_one_finished(make(1))
    done = make(1).partial_dir / f"{NAME}.done"
    done.write_text(content)
    with make(1) as output:
        assert output.begin(overwrite=False) is None
        assert output.finished(NAME) is None


def test_a_user_s_file_that_comes_later_is_not_published(make, tmp_path):
    leave_one_finished(make(1))
    with pytest.raises(FileExistsError, match="notes.txt. Move it"), make(1) as output:
        output.begin(overwrite=False)
        (output.partial_dir / "notes.txt").write_text("mine")
        output.publish([output.finished(NAME)])
    assert names(make(1)) == {NAME, f"{NAME}.done", "stage.json", "notes.txt"}
    assert not (tmp_path / "records").exists()


def test_a_user_s_file_stays_where_nothing_was_finished(make):
    with pytest.raises(ValueError), make(1) as output:
        output.begin(overwrite=False)
        (output.partial_dir / f"{NAME}.tmp").touch()
        (output.partial_dir / "notes.txt").touch()
        raise ValueError
    assert names(make(1)) == {"notes.txt"}


def test_what_a_killed_command_left_is_deleted(make):
    own = (
        *(f"{NAME}.tmp", f"{'0' * 64}.npy", f".{'0' * 64}.npy.0123abcd.bert_tf.tmp"),
        *(".stage.json.0123abcd.bert_tf.tmp", ".stage.json.abcd_xyz.tmp"),
        "part-00001-of-00002.hdf5",
    )
    leave_one_finished(make(1), *own)
    with make(2) as output:
        output.begin(overwrite=False)
        assert names(output) == {"stage.json"}
    assert not output.partial_dir.exists()
