import json

import pytest

from bert_tf import flags
from bert_tf.config import BertConfig
from bert_tf.config.finetuning import ClassifierConfig
from bert_tf.jobs.architecture import load_bert_config
from bert_tf.jobs.starting_point import StartingPoint

NEW, OWN = StartingPoint(), StartingPoint("/run/model.ckpt-3", True, is_own=True)


def write_config(folder, hidden_act):
    folder.mkdir()
    config = BertConfig(vocab_size=8, hidden_size=8, num_attention_heads=2)
    values = config.to_dict() | {"hidden_act": hidden_act}
    (folder / "bert_config.json").write_text(json.dumps(values))
    (folder / "model.safetensors").touch()
    return folder


def settings(output_dir, *more):
    files = ["--task_name=tsv", "--data_dir=/data", f"--output_dir={output_dir}"]
    return flags.parse(ClassifierConfig, ["run", "--do_train", *files, *more]).files


def test_a_resumed_run_has_its_own_architecture(tmp_path):
    run, first = write_config(tmp_path / "run", "relu"), tmp_path / "first"
    named = f"--init_checkpoint={write_config(first, 'gelu')}"
    assert load_bert_config(settings(run, named), OWN).hidden_act == "relu"
    assert load_bert_config(settings(run, named), NEW).hidden_act == "gelu"
    gone = settings(run, "--init_checkpoint=/gone")
    assert load_bert_config(gone, OWN).hidden_act == "relu"
    with pytest.raises(FileNotFoundError, match="no weights at /gone"):
        load_bert_config(gone, NEW)


def test_flags_come_before_files(tmp_path):
    run = write_config(tmp_path / "run", "relu")
    other = write_config(tmp_path / "other", "tanh") / "bert_config.json"
    named = settings(run, f"--bert_config_file={other}")
    assert load_bert_config(named, OWN).hidden_act == "tanh"


def test_without_any_config_the_message_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match="no config beside `init_checkpoint` or in"):
        load_bert_config(settings(tmp_path), NEW)
