"""The commands of README and docs, as they stand in their fences."""

import dataclasses
import re
import shlex

from conftest import ROOT

PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
_FENCE = re.compile(r"^```(\w*)(?: needs=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Fence:
    """A fence of commands.

    Attributes:
      page: The file that it is in.
      needs: Why no test executes it: network, gpu, cluster or data; empty: one does.
      commands: Words of each line.
    """

    page: str
    needs: str
    commands: list[list[str]]


def fences(*pages):
    """The fences of pages, by default of all; only those with commands."""
    for page in pages or PAGES:
        for language, needs, text in _FENCE.findall(PAGES[page]):
            if language in ("bash", "sh", "shell", ""):
                lines = text.replace("\\\n", " ").splitlines()
                words = [shlex.split(line, comments=True) for line in lines]
                yield Fence(page, needs, [line for line in words if line])
