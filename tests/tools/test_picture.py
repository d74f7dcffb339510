"""The pictures of the documents."""

import numpy as np
import pytest
from PIL import Image
from report import browser

from tools import picture


@pytest.fixture
def page(tmp_path):
    """Three thick lines of their own colour, and two parts."""
    path = tmp_path / "page.html"
    bars = "".join(
        f'<div style="background: {colour}; height: 9px"></div>'
        for colour in ("#1f77b4", "#ff7f0e", "#2ca02c")
    )
    path.write_text(
        f"<!DOCTYPE html><body>{bars}<h2>First</h2>one<h2>Second</h2>"
        '<div style="background: black; height: 500px"></div>'
    )
    return path


def test_a_part_and_what_follows_are_left_out():
    page = "<h2>Results</h2>1<h2>Data</h2>2<h2>Environment</h2>3"
    assert picture.first_parts(page, "Data") == "<h2>Results</h2>1"
    with pytest.raises(SystemExit, match="no part 'Hosts'"):
        picture.first_parts(page, "Hosts")


@pytest.mark.slow
def test_a_picture_shows_the_first_parts_in_their_colours(page, tmp_path, monkeypatch):
    browser.require()
    path = tmp_path / "picture.png"
    monkeypatch.setattr("sys.argv", ["picture.py", str(page), str(path), "Second"])
    picture.main()
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape[1] == picture.WIDTH
    assert pixels.shape[0] < 300
    for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):
        assert np.abs(pixels - colour).max(axis=2).min() <= 4
    assert pixels.max(axis=2).min() < 60  # The text.
    assert pixels[-10:].min() > 250  # The margin.
