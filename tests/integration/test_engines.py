"""An engine of the workers that is not Horovod: nothing else has to know."""

import sys

import numpy as np
import pytest
from integration.launching import ROOT, start
from integration.worker import train_and_evaluate
from runs import assert_same_bytes, pretraining_flags

from bert_tf.distribute import Communicator

ENGINE = ROOT / "tests" / "integration" / "file_engine.py"


def flags(config_file, records, folder, **batch):
    more = ("--noscale_learning_rate", "--do_eval", f"--eval_files_dir={records}")
    return pretraining_flags(
        config_file, records, folder, *more, "--max_eval_steps=4", steps=6, **batch
    )


@pytest.mark.slow
def test_two_workers_of_another_engine_train_as_one(
    tiny_config_file, tiny_records, tmp_path
):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    two = flags(tiny_config_file, tiny_records, tmp_path / "two", accumulation=2)
    command = [sys.executable, ENGINE, meeting]
    workers = [start([*command, rank, 2, *two]) for rank in range(2)]
    try:
        assert [worker.wait(300) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    ours = [dict(np.load(meeting / f"result-{rank}.npz")) for rank in range(2)]
    assert_same_bytes(*ours)
    one = flags(tiny_config_file, tiny_records, tmp_path / "one", accumulation=4)
    expected = train_and_evaluate(one, Communicator())
    for name in ("losses", "result masked_lm_loss", "result next_sentence_count"):
        np.testing.assert_allclose(ours[0][name], expected[name], rtol=1e-5)
    for name, array in expected.items():
        # A key bias does not change the softmax: its gradient is rounding alone.
        if not name.startswith("result") and "key/bias" not in name:
            scale = max(np.linalg.norm(array), 1e-3)
            assert np.linalg.norm(ours[0][name] - array) < 1e-4 * scale, name
