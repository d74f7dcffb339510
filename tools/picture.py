"""Takes a picture of a run's report, for the documents.

python tools/picture.py RUN_DIR/report.html PICTURE.png
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

CHROMIUM = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "chrome"),
)
WIDTH, HEIGHT = 1180, 1000
LARGEST = 150_000  # Bytes.


def main() -> None:
    """Takes the picture: the top of the page, in 64 colours."""
    page, picture = sys.argv[1:]
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        sys.exit(f"error: there is no browser: install one of {', '.join(CHROMIUM)}.")
    if not Path(page).is_file():
        sys.exit(f"error: {page} is missing: run the commands of README.md first.")
    with tempfile.TemporaryDirectory() as folder:
        screenshot = Path(folder, "screenshot.png")
        command = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--hide-scrollbars", f"--user-data-dir={folder}/profile"),
            f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={screenshot}",
            Path(page).resolve().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        Path(picture).parent.mkdir(parents=True, exist_ok=True)
        Image.open(screenshot).convert("RGB").quantize(64).save(picture, optimize=True)
    size = Path(picture).stat().st_size
    if size > LARGEST:
        sys.exit(f"error: {picture} has {size:,} bytes, more than {LARGEST:,}.")
    print(f"{picture}: {size:,} bytes")


if __name__ == "__main__":
    main()
