"""Pages about runs: their curves are there, and nothing is fetched or executed."""

import html.parser
import json
import re

import numpy as np
import pytest

from bert_tf import cli
from bert_tf.errors import RunError
from bert_tf.report.log_curves import decimate, read_log
from bert_tf.report.writing import write_report

EVIL = "<script>document.title='run'</script>"


def line(step, **data):
    return "DLLL " + json.dumps({"type": "LOG", "step": step, "data": data}) + "\n"


def train_line(step, loss=1.0):
    return line(
        step,
        total_loss=loss,
        mlm_loss=loss / 2,
        learning_rate=1e-4,
        gradient_norm=2.0,
        throughput_train=100.0,
    )


class Page(html.parser.HTMLParser):
    """Tags with their attributes, texts, and the points of each curve."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.points = [], [], {}
        self._group = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "g":
            self._group = attributes.get("id", "")
        elif tag == "path" and "-" in self._group:
            count = len(re.findall("[ML]", attributes["d"]))
            self.points.setdefault(self._group, count)

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def assert_fetches_nothing(path):
    """No script, and no address that a browser would load."""
    page, content = Page(path), path.read_text(encoding="utf-8")
    assert not {"script", "link", "iframe", "object", "embed", "base", "img"} & {
        tag for tag, _ in page.tags
    }
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert value.startswith("#"), value
    assert not re.search(r"url\((?!#)|@import", content)
    assert path.stat().st_size < 1_000_000
    return page


def make_run(folder, log, **files):
    folder.mkdir(parents=True, exist_ok=True)
    if log is not None:
        (folder / "bert_dllog.json").write_text(log)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def page_of(*folders, output=None):
    output = output or folders[0] / "report.html"
    write_report(str(output), [str(folder) for folder in folders])
    return assert_fetches_nothing(output)


def test_a_page_has_the_curves_of_the_log(tmp_path):
    log = "".join(train_line(step) for step in range(10, 310, 10))
    log += line(300, masked_lm_accuracy=0.5) + line(310, masked_lm_accuracy=0.6)
    page = page_of(make_run(tmp_path / "run", log))
    assert page.points["loss-0"] == 30
    assert page.points["loss-1"] == 30
    assert page.points["learning_rate-0"] == page.points["gradient_norm-0"] == 30
    assert page.points["throughput-0"] == 30
    assert page.points["accuracy-0"] == 2


def test_the_loss_without_context_is_a_dashed_line_over_the_curve(tmp_path):
    lines = [line("PARAMETER", first_step=1, masked_token_entropy=6.5)]
    lines += [train_line(step) for step in range(1, 50)]
    (tmp_path / "bert_dllog.json").write_text("".join(lines))
    write_report(tmp_path / "report.html", [tmp_path], "")
    content = (tmp_path / "report.html").read_text()
    assert Page(tmp_path / "report.html").points["loss-2"] == 2
    [drawn] = re.findall(r'<g id="loss-2">.*?</g>', content, re.DOTALL)
    assert "stroke-dasharray" in drawn
    assert "masked LM without context" in content


def test_nothing_in_the_files_of_a_run_is_markup(tmp_path):
    facts = {
        "command": f"python run.py --output_dir='{EVIL}'",
        "settings": {EVIL: {EVIL: EVIL}, "files": {"output_dir": [EVIL]}},
        "environment": {EVIL: EVIL},
        "data": {EVIL: EVIL, "lengths": [0, 1, 5]},
        "details": {
            "confusion": {"classes": [EVIL, "b"], "counts": [[1, 2], [3, 4]]},
            "hardest": [{EVIL: EVIL, "true": '"><img src=x onerror=alert(1)>'}],
        },
    }
    name = EVIL.replace("/", "\u2215") + '"$\\frac'
    log = train_line(1) + line(1, **{EVIL: 1.0}) + "DLLL <script>\n"
    folder = make_run(tmp_path / name, log, report=facts, task={EVIL: EVIL})
    (folder / "eval_results.txt").write_text(f"{EVIL} = 1\n")
    page = page_of(folder)
    assert EVIL in page.text
    other = make_run(tmp_path / "b", train_line(1))
    page_of(folder, other, output=tmp_path / "both.html")


def test_a_log_that_is_cut_off_or_empty_makes_a_page(tmp_path):
    cut = page_of(make_run(tmp_path / "cut", train_line(1) + train_line(2)[:30]))
    assert cut.points["loss-0"] == 1
    assert "1 line of the log cannot be read" in cut.text
    empty = page_of(make_run(tmp_path / "empty", ""))
    assert "The log has no training steps" in empty.text
    assert not empty.points


def test_losses_that_are_not_finite_are_gaps(tmp_path):
    log = "".join(train_line(s, float("nan") if s == 3 else 1.0) for s in range(1, 6))
    log += line(6, total_loss=float("inf"), learning_rate=10**400)
    page = page_of(make_run(tmp_path / "run", log))
    assert page.points["loss-0"] == 4
    assert "2 logged steps with values that are not finite" in page.text


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path):
    log = "".join(train_line(step, 1.0) for step in range(1, 11))
    log += line(8, masked_lm_accuracy=0.1)
    log += line("PARAMETER", first_step=6)
    log += "".join(train_line(step, 2.0) for step in range(6, 9))
    curves = read_log(str(make_run(tmp_path / "run", log) / "bert_dllog.json"))
    assert curves.training["total_loss"].steps.tolist() == [*range(1, 9)]
    assert curves.training["total_loss"].values.tolist() == [1.0] * 5 + [2.0] * 3
    assert not len(curves.evaluation["masked_lm_accuracy"])


def test_a_log_without_starts_does_the_same(tmp_path):
    log = "".join(train_line(s) for s in (1, 2, 3, 4, 3, 4))
    curves = read_log(str(make_run(tmp_path / "run", log) / "bert_dllog.json"))
    assert curves.training["total_loss"].steps.tolist() == [1, 2, 3, 4]


def test_the_results_of_the_best_weights_are_no_later_point(tmp_path):
    log = "".join(line(step, accuracy=step / 10) for step in (4, 8, 12))
    best = log + line([], accuracy=0.4, global_step=4)
    curves = read_log(str(make_run(tmp_path / "run", best) / "bert_dllog.json"))
    assert curves.evaluation["accuracy"].steps.tolist() == [4, 8, 12]
    last = log + line([], accuracy=0.4, global_step=16)
    curves = read_log(str(make_run(tmp_path / "run", last) / "bert_dllog.json"))
    assert curves.evaluation["accuracy"].steps.tolist() == [4, 8, 12, 16]


def test_a_checkpoint_that_is_saved_late_is_no_step(tmp_path):
    log = train_line(1) + train_line(2) + line(1, checkpoint_seconds=3.0)
    curves = read_log(str(make_run(tmp_path / "run", log) / "bert_dllog.json"))
    assert curves.training["total_loss"].steps.tolist() == [1, 2]
    assert not curves.evaluation


def test_results_follow_the_checkpoint_of_the_last_step(tmp_path):
    log = train_line(1) + train_line(2)
    log += line(2, checkpoint_seconds=3.0, checkpoint_blocked_seconds=1.0)
    log += line([], masked_lm_accuracy=0.4, global_step=2)
    curves = read_log(str(make_run(tmp_path / "run", log) / "bert_dllog.json"))
    assert curves.evaluation["masked_lm_accuracy"].steps.tolist() == [2]
    assert "checkpoint_blocked_seconds" not in curves.evaluation


def test_a_run_that_begins_again_is_not_resumed(tmp_path):
    log = line("PARAMETER", first_step=11) + line([], throughput_train=99.0)
    log += line("PARAMETER", first_step=1) + train_line(1)
    curves = read_log(str(make_run(tmp_path / "run", log) / "bert_dllog.json"))
    assert curves.first_steps == [1] and not curves.summary


def test_long_curves_keep_their_ends_and_peaks():
    steps = np.arange(1_000_000)
    values = np.sin(steps / 1e5)
    values[123_456], values[654_321] = 50.0, -50.0
    values[500_000:600_000] = np.nan
    kept, chosen = decimate(steps, values, 600)
    assert len(kept) <= 600
    assert (kept[0], kept[-1]) == (0, 999_999)
    assert (np.diff(kept) > 0).all()
    assert {123_456, 654_321} <= {*kept.tolist()}
    assert np.isnan(chosen).any()
    np.testing.assert_array_equal(values[kept], chosen)


@pytest.mark.slow
def test_a_log_of_a_million_lines_makes_a_small_page(tmp_path):
    first = line(0, total_loss=1.0, learning_rate=1e-4)
    log = "".join(first.replace('"step": 0', f'"step": {s}') for s in range(1_000_000))
    page = page_of(make_run(tmp_path / "run", log))
    assert 100 < page.points["loss-0"] <= 600
    assert page.points["loss-0"] >= 2


def test_runs_are_compared_on_one_page(tmp_path):
    folders = []
    for number in range(3):
        settings = {"optimizer": {"learning_rate": 0.1 * number, "beta_1": 0.9}}
        log = "".join(train_line(step, number) for step in range(1, 21))
        parent = tmp_path / str(number)
        folders.append(make_run(parent / "run", log, report={"settings": settings}))
    page = page_of(*folders, output=tmp_path / "comparison.html")
    assert [page.points[f"loss-{n}"] for n in range(6)] == [20] * 6
    assert "optimizer.learning_rate" in page.text
    assert "optimizer.beta_1" not in page.text
    for folder in folders:  # Runs of one name are told apart.
        assert str(folder) in page.text


def test_of_runs_that_are_compared_each_has_a_colour(tmp_path):
    log = "".join(train_line(step) for step in range(1, 21))
    folders = [make_run(tmp_path / name, log) for name in "ab"]
    write_report(tmp_path / "both.html", folders)
    content = (tmp_path / "both.html").read_text()
    colours = re.findall(r'<g id="loss-\d">[^>]*stroke: (#\w+)', content)
    assert len(colours) == 4 and len({*colours}) == 2
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_a_run_of_an_earlier_version_has_its_manifest_alone(tmp_path):
    manifest = {
        "num_records": 150,
        "config": {
            "optimizer": {"learning_rate": 0.01},
            "versions": {"tensorflow": "2.20.0"},
            "workers": 2,
        },
    }
    folder = make_run(tmp_path / "run", train_line(1), **{"model.ckpt-9": manifest})
    page = page_of(folder)
    assert "2.20.0" in page.text and "learning_rate" in page.text
    assert "a run of an earlier version" in page.text


def test_damaged_files_are_named_and_left_out(tmp_path):
    folder = make_run(tmp_path / "run", train_line(1))
    (folder / "report.json").write_text('{"settings": ')
    (folder / "task.json").write_bytes(b"\xff\xfe\x00")
    page = page_of(folder)
    assert "report.json cannot be read" in page.text
    assert "task.json cannot be read" in page.text


@pytest.mark.parametrize(
    "facts",
    [
        {"settings": [], "environment": 3, "data": "x", "details": [], "command": {}},
        {"data": {"lengths": [1, "a"]}, "details": {"confusion": {"classes": 3}}},
        {"details": {"confusion": {"classes": ["a"], "counts": [[1, 2]]}}},
        {"details": {"hardest": [3, None]}, "data": {"lengths": [-5]}},
        {"data": {"lengths": [10**300]}, "details": {"confusion": {"counts": 1}}},
        {"settings": {"a": {"b": {"c": [1]}}, "d": None}},
    ],
)
def test_facts_of_any_shape_make_a_page(tmp_path, facts):
    page_of(make_run(tmp_path / "run", train_line(1), report=facts))


def test_the_command_writes_one_page_or_compares(tmp_path, monkeypatch, capsys):
    folders = [make_run(tmp_path / name, train_line(1)) for name in "ab"]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "a"]) == 0
    assert_fetches_nothing(tmp_path / "a" / "report.html")
    assert cli.main(["report", *map(str, folders)]) == 0
    assert_fetches_nothing(tmp_path / "comparison.html")
    assert cli.main(["report", "?", "--output=new/page.html"]) == 0
    assert_fetches_nothing(tmp_path / "new" / "page.html")
    paths = ["a/report.html", "comparison.html", "new/page.html"]
    assert capsys.readouterr().out.splitlines() == paths
    assert cli.main(["report", "missing"]) == 1
    assert cli.main(["report", "a", "b", "--dllog_path=x"]) == 1


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="must be the --output_dir of a run"):
        write_report(str(tmp_path / "x.html"), [str(tmp_path)])
    with pytest.raises(RunError, match="is no folder"):
        write_report(str(tmp_path / "x.html"), [str(tmp_path / "missing")])


def test_many_classes_are_listed_by_their_worst_pairs(tmp_path):
    names = [f"c{n}" for n in range(30)]
    counts = np.eye(30, dtype=int) * 9
    counts[3, 4] = 7
    details = {"confusion": {"classes": names, "counts": counts.tolist()}}
    page = page_of(make_run(tmp_path / "run", "", report={"details": details}))
    assert "c3 taken for c4" in page.text
