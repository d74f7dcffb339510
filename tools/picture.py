"""Takes a picture of a page about runs, for the documents.

python tools/picture.py PAGE.html PICTURE.png [PART]

PART is the heading of the first part that is left out: the texts of examples are not
ours, and the command and the environment are of one machine.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

CHROMIUM = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "chrome"),
)
WIDTH, HEIGHT = 1180, 3000
MARGIN = 20  # Below the last part.
COLOURS = 256
LARGEST = 150_000  # Bytes.


def first_parts(page: str, part: str) -> str:
    """The page without a part, and without what follows it."""
    before, found, _ = page.partition(f"<h2>{part}</h2>")
    if not found:
        sys.exit(f"error: the page has no part {part!r}.")
    return before


def without_margin(image: Image.Image) -> Image.Image:
    """The image without the white below its last line."""
    white = Image.new("RGB", image.size, "white")
    bounds = ImageChops.difference(image, white).getbbox()
    bottom = bounds[3] if bounds else 0
    return image.crop((0, 0, image.width, min(bottom + MARGIN, image.height)))


def main() -> None:
    """Takes the picture."""
    page, picture, *parts = sys.argv[1:]
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        sys.exit(f"error: there is no browser: install one of {', '.join(CHROMIUM)}.")
    if not Path(page).is_file():
        sys.exit(f"error: {page} is missing: run the commands of the documents first.")
    content = Path(page).read_text(encoding="utf-8")
    for part in parts:
        content = first_parts(content, part)
    with tempfile.TemporaryDirectory() as folder:
        shown, screenshot = Path(folder, "page.html"), Path(folder, "screenshot.png")
        shown.write_text(content, encoding="utf-8")
        command = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--hide-scrollbars", f"--user-data-dir={folder}/profile"),
            f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={screenshot}",
            shown.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        image = without_margin(Image.open(screenshot).convert("RGB"))
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    # The method of median cut would make one colour of two thin curves.
    image.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(picture, optimize=True)
    size = Path(picture).stat().st_size
    if size > LARGEST:
        sys.exit(f"error: {picture} has {size:,} bytes, more than {LARGEST:,}.")
    print(f"{picture}: {size:,} bytes, {image.width} x {image.height}")


if __name__ == "__main__":
    main()
