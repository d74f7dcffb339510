"""Pages about runs in Chromium: nothing is fetched, covered, cut off or broken."""

import json
import math

import pytest
from report import browser

from bert_tf.report.writing import write_report

pytestmark = pytest.mark.slow
RATES = {"pretraining": 7e-3, "slower": 3e-5}
WIDTHS = (390, 768, 1180)  # Of a phone, a tablet and a window, in pixels.
TEXT = "is there a difference between one [SEP] and the other of these texts [SEP] " * 3
EVIL = "<script>document.title='run'</script><img src=x onerror=document.title='x'>"
SHA256 = "3119c1ed7c71ee231dbdf78a7f1c15636e9f73b1e4958233931ed9ed3bf4469f"


def line(step, **data):
    return "DLLL " + json.dumps({"type": "LOG", "step": step, "data": data}) + "\n"


def pretraining_log(rate):
    start = {"first_step": 1, "masked_token_entropy": 6.9}
    lines = [line("PARAMETER", **start)]
    lines += [
        line(
            step,
            total_loss=8 + 3 * math.exp(-step / 50),
            mlm_loss=7 + 3 * math.exp(-step / 50),
            nsp_loss=0.7,
            learning_rate=rate * (1 - step / 310),
            gradient_norm=2.0,
            throughput_train=12345.6,
        )
        for step in range(10, 310, 10)
    ]
    result = dict(loss=8.1, masked_lm_loss=7.1, next_sentence_loss=0.7)
    lines += [line(300, masked_lm_accuracy=0.1, next_sentence_accuracy=0.6, **result)]
    return "".join(lines)


def finetuning_facts():
    hardest = [
        {"text": TEXT, "true": "False", "predicted": "True", "probability": 0.0983},
        {"text": "x" * 300, "true": "True", "predicted": "False", "probability": 0.1},
    ]
    return {
        "settings": {"files": {"input_files_dir": "/a/long/name" * 20}},
        "environment": {"system": EVIL, EVIL: "Linux"},
        "data": {"sha256": SHA256, "lengths": [0, 5, 9, 3]},
        "details": {
            "confusion": {"classes": ["False", "True"], "counts": [[639, 598], [5, 9]]},
            "hardest": hardest,
        },
        "command": "python run_classifier.py --output_dir=" + "long/" * 80,
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of a pre-training, of a fine-tuning, and of runs that are compared."""
    folder = tmp_path_factory.mktemp("pages")
    # Of runs with one name, the whole paths are shown.
    many = [f"{number}/{'a_long_name_' * 9}/run" for number in range(6)]
    for name, rate in {**dict.fromkeys(many, 0.1), **RATES}.items():
        run = folder / name
        run.mkdir(parents=True)
        (run / "bert_dllog.json").write_text(pretraining_log(rate))
        facts = {"settings": {"optimizer": {"learning_rate": rate}}}
        (run / "report.json").write_text(json.dumps(facts))
    run = folder / "finetuning"
    run.mkdir()
    log = "".join(line(s, loss=1 / s, learning_rate=3e-5 / s) for s in range(1, 40))
    (run / "bert_dllog.json").write_text(log + line(39, loss=0.4, accuracy=0.7))
    (run / "report.json").write_text(json.dumps(finetuning_facts()))
    runs = {name: [folder / name] for name in ("pretraining", "slower", "finetuning")}
    runs["comparison"] = runs["pretraining"] + runs["slower"]
    runs["many"] = [folder / name for name in many]
    for name, folders in runs.items():
        write_report(folder / f"{name}.html", folders)
    return {name: folder / f"{name}.html" for name in runs}


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A tab of the browser."""
    program = browser.require()
    with browser.open_tab(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def test_a_page_fetches_nothing(tab, pages, tmp_path):
    other = tmp_path / "other.html"
    other.write_text('<img src="x.png"><script src="https://example.com/x"></script>')
    tab.open(other, 1180)
    fetched = [other.as_uri(), (tmp_path / "x.png").as_uri(), "https://example.com/x"]
    assert sorted(tab.requested) == sorted(fetched)  # It would be seen.
    for page in pages.values():
        tab.open(page, 1180)
        assert tab.requested == [page.as_uri()]


def test_nothing_in_the_files_of_a_run_is_executed(tab, pages):
    tab.open(pages["finetuning"], 1180)
    assert tab.evaluate("document.title") == "finetuning, step 39"
    assert EVIL in tab.evaluate("document.body.textContent")


def test_the_curves_are_drawn(tab, pages):
    for name, count in (("pretraining", 7), ("finetuning", 2), ("comparison", 14)):
        tab.open(pages[name], 1180)
        sizes = tab.evaluate(
            "[...document.querySelectorAll('[id^=loss-]')]"
            ".map(x => x.getBoundingClientRect().width)"
        )
        assert len(sizes) == count
        assert max(sizes) > 300


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_page(tab, pages, width):
    for page in pages.values():
        tab.open(page, width)
        tab.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        # A text that is wider than its table can be scrolled to; a chart cannot.
        cut = tab.evaluate(
            "[...document.querySelectorAll('svg text')].map(x => [x.textContent, "
            "x.getBoundingClientRect(), x.closest('svg').getBoundingClientRect()])"
            ".filter(([_, x, svg]) => x.left < svg.left || x.right > svg.right || "
            "svg.right > innerWidth || x.top < svg.top || x.bottom > svg.bottom)"
            ".map(([text, _]) => text)"
        )
        assert cut == [], page


@pytest.mark.parametrize("width", WIDTHS)
def test_short_words_of_tables_are_not_broken(tab, pages, width):
    tab.open(pages["finetuning"], width)
    heights = tab.evaluate(
        "[...document.querySelectorAll('td, th')]"
        ".filter(x => /^\\w{1,20}$/.test(x.textContent)).map(x => {"
        "const range = document.createRange(); range.selectNodeContents(x);"
        "return [x.textContent, range.getBoundingClientRect().height] })"
    )
    words = [word for word, _ in heights]
    assert {"predicted", "False", "sha256"} <= {*words}
    assert max(height for _, height in heights) < 25  # One line.


@pytest.mark.parametrize("width", WIDTHS)
def test_legends_cover_no_curve(tab, pages, width):
    tab.open(pages["comparison"], width)
    places = tab.evaluate(
        "[...document.querySelectorAll('.charts svg')].map(svg => ["
        "svg.querySelector('[id^=legend]').getBoundingClientRect().top, "
        "svg.querySelector('[id^=axes]').getBoundingClientRect().bottom])"
    )
    assert len(places) == 5
    assert all(legend > axes - 1 for legend, axes in places), places


def test_the_charts_of_a_page_have_the_same_steps(tab, pages):
    tab.open(pages["finetuning"], 1180)
    # The evaluation is a single point, which alone would have an axis around it.
    ticks = tab.evaluate(
        "[...document.querySelectorAll('.charts svg')].slice(0, 3).map(svg =>"
        "[...svg.querySelectorAll('[id^=xtick] text')].map(x => x.textContent))"
    )
    assert ticks[0] == ticks[1] == ticks[2]
    assert ticks[0][0] == "0"
