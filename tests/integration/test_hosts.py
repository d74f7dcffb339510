"""Four hosts over TCP and ssh, none of which sees another's folders.

With BERT_TF_FAULTS=full a second phase and a second measurement follow.
"""

import importlib.util
import json
import pathlib
import sys
import tempfile

import numpy as np
import pytest
from conftest import ROOT, TINY, make_example, write_records
from faults.counts import count, full_only
from integration.hosts import PORT, Hosts, missing
from runs import checkpoint_bytes, logged_values

_MISSING = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.horovod,
    pytest.mark.skipif(bool(_MISSING), reason=f"hosts on one machine need {_MISSING}"),
]
_SIZE = 4
_STEPS = 4


def _demo_bert():
    spec = importlib.util.spec_from_file_location("demo_bert", ROOT / "demo_bert.py")
    module = sys.modules["demo_bert"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(prefix="bert_hosts_") as path:
        yield path


@pytest.fixture(scope="module")
def hosts(folder):
    """The data are on every host; a model, and all results, on the first one alone."""
    rng = np.random.default_rng(7)
    for side in ("training", "test"):
        path = pathlib.Path(f"{folder}/data/seq_len_16/books_wiki_en_corpus/{side}")
        path.mkdir(parents=True)
        # As many predictions as demo_bert.py expects at that length: 15%.
        examples = [make_example(rng, max_predictions=2) for _ in range(100)]
        write_records(path / "part.tfrecord", examples)
    mounts = [f"{folder}/{name}" for name in ("model", "out")]
    with Hosts(f"{folder}/net", _SIZE, mounts) as made:
        config = made.path(f"{folder}/model/bert_config.json")
        config.write_text(json.dumps(TINY))
        yield made


def _arguments(folder, output_dir, *more):
    """Those of demo_bert.py; 4 workers x 2 sequences x 2 accumulation."""
    return [
        *("-c", "pretraining", "-m", "tiny", "-d", "fp32", "-t", "bookswiki"),
        *("--bert-config-dir", f"{folder}/model", "--dataset_path", f"{folder}/data"),
        *("-s", "16,16", "-b", "2", "--global_batch_size", "16", "-w", "1,1"),
        *("-o", f"{folder}/{output_dir}", *more),
    ]


@pytest.fixture(scope="module")
def runs(hosts, folder):
    """One host; four hosts that stop half-way; and the same command again."""
    one = _arguments(folder, "out/one", "-v", str(_SIZE), "-i", str(_STEPS))
    results = {"one": hosts.run(sys.executable, "demo_bert.py", *one, timeout=600)}
    variables = {
        "MULTI_HLS_IPS": ",".join(hosts.addresses),
        "MPI_TCP_INCLUDE": "10.77.0.0/24",
    }
    steps = count(f"{_STEPS}", f"{_STEPS},1")
    four = _arguments(folder, "out/four", "-v", "1", "-i", steps)
    demo = _demo_bert()
    stage, *_ = demo.stages(demo.parse(four), variables)
    half = [*stage.command, f"--steps_this_run={_STEPS // 2}", "--nodo_eval"]
    results["half"] = hosts.run(*half, timeout=600)
    results["rest"] = hosts.run(
        sys.executable, "demo_bert.py", *four, env=variables, timeout=900
    )
    return results


def _results(hosts, folder, path):
    return hosts.path(f"{folder}/out/{path}")


@pytest.mark.parametrize("name", ["one", "half", "rest"])
def test_a_run_ends_with_code_0(runs, name):
    assert runs[name].returncode == 0, runs[name].stdout + runs[name].stderr[-3000:]


def test_workers_on_four_hosts_end_with_the_bytes_of_four_on_one(runs, hosts, folder):
    """Stopped half-way, and resumed from a checkpoint that the first host alone has."""
    one = checkpoint_bytes(_results(hosts, folder, "one/phase_1"), _STEPS)
    four = checkpoint_bytes(_results(hosts, folder, "four/phase_1"), _STEPS)
    assert one == four


def test_a_run_stopped_half_way_resumes_at_its_step(runs, hosts, folder):
    steps = logged_values(_results(hosts, folder, "four/phase_1"), "total_loss")
    assert [step for step, _ in steps][-1] == _STEPS
    assert "resumes" not in runs["half"].stderr
    assert f"model.ckpt-{_STEPS // 2}" in runs["rest"].stdout


def test_what_is_sent_is_logged(runs):
    lines = runs["rest"].stdout
    assert "workers 1 (h2), 2 (h3) and 3 (h4): --output_dir of the first" in lines
    assert "--bert_config_file of the first worker is not there; sent: 1 file," in lines


@full_only
def test_the_second_phase_starts_from_weights_of_the_first_host(runs, hosts, folder):
    assert (_results(hosts, folder, "four/phase_2") / "model.ckpt-1.index").exists()
    assert "--init_checkpoint of the first worker is not there" in runs["rest"].stdout


def test_other_hosts_keep_no_checkpoint(runs, hosts, folder):
    for host in range(1, _SIZE):
        out = hosts.path(f"{folder}/out", host)
        assert not [path for path in out.rglob("*") if "ckpt" in path.name]


@pytest.fixture(scope="module")
def wire(hosts, folder):
    """What two hosts send for the same sums, on a link of 50 Mbit/s."""
    results = {}
    with hosts.limited_rate("50mbit"):
        _measure(hosts, folder, results)
    return results


def _measure(hosts, folder, results):
    for name, more in {"unfused": ("0",), **count({}, {"default": ()})}.items():
        path = f"{folder}/net/{name}.json"
        worker = ROOT / "tests" / "integration" / "wire_worker.py"
        result = hosts.run(
            *("mpirun", "--allow-run-as-root", "-H", "h1:1,h2:1", "-np", "2"),
            *("--mca", "plm_rsh_args", f"-p{PORT}"),
            *("--mca", "btl_tcp_if_include", "eth0"),
            *(sys.executable, worker, path, *more),
            timeout=400,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        results[name] = json.loads(pathlib.Path(path).read_text())


def test_float16_halves_the_bytes_of_gradients(wire):
    sums = wire["unfused"]
    # 8 MB of float32 once around a ring of two: each worker sends half of it twice.
    assert sums["float32"]["bytes"] == pytest.approx(8 * 2**20, rel=0.1)
    ratio = sums["float16"]["bytes"] / sums["float32"]["bytes"]
    assert ratio == pytest.approx(0.5, abs=0.05)


def test_float16_takes_half_the_time_where_the_link_is_slow(wire):
    """8 MB take 1.3 s at 50 Mbit/s; what else happens takes some milliseconds."""
    sums = wire["unfused"]
    assert sums["float32"]["seconds"] > 1.0
    assert sums["float16"]["seconds"] < 0.75 * sums["float32"]["seconds"]


def test_without_fusion_every_tensor_is_a_message(wire):
    """500 tensors of 16 bytes: headers of TCP and MPI are most of what is sent."""
    assert wire["unfused"]["many"]["bytes"] > 500 * (16 + 40)


@full_only
def test_with_fusion_they_are_one_message(wire):
    assert 500 * 16 < wire["default"]["many"]["bytes"] < 1.5 * 500 * 16
