"""Chromium by its own protocol, on pipes: what a page loads and how it is laid out."""

import contextlib
import json
import os
import shutil
import signal

import pytest
from conftest import NOT_HERE

NAMES = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "chrome"),
)


def require():
    """The program; skips the test if there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"{NOT_HERE}the report in a browser, there is no Chromium")
    return program


class Tab:
    """A page, and the addresses that it asked for."""

    def __init__(self, requests, answers):
        self.requested = []
        self._requests, self._answers = requests, answers
        self._session, self._count = {}, 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Network.enable")
        self.call("Page.enable")

    def call(self, method, **params):
        """Calls the browser, and waits for the answer."""
        self._count += 1
        message = dict(id=self._count, method=method, params=params, **self._session)
        self._requests.write(json.dumps(message).encode() + b"\0")
        self._requests.flush()
        return self._wait(lambda answer: answer.get("id") == self._count)["result"]

    def open(self, path, width):
        """Shows a file in a window of that many pixels, until it has loaded."""
        self.requested.clear()
        size = dict(width=width, height=800, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=path.as_uri())
        self._wait(lambda answer: answer.get("method") == "Page.loadEventFired")

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")  # None if undefined.

    def _wait(self, is_wanted):
        """The first message that is wanted; keeps the addresses of the others."""
        text = b""
        while byte := self._answers.read(1):
            if byte != b"\0":
                text += byte
                continue
            answer, text = json.loads(text), b""
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
            if is_wanted(answer):
                assert "error" not in answer, answer
                return answer
        raise AssertionError("the browser has ended")


@contextlib.contextmanager
def open_tab(program, folder):
    """A tab of a browser that ends with the context.

    Args:
      program: See `require`.
      folder: Empty, for its profile.
    """
    # It reads requests from 3 and writes answers to 4.
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu"),
        *("--remote-debugging-pipe", f"--user-data-dir={folder}"),
    ]
    actions = [
        (os.POSIX_SPAWN_DUP2, theirs_in, 3),
        (os.POSIX_SPAWN_DUP2, theirs_out, 4),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    process = os.posix_spawn(program, command, os.environ, file_actions=actions)
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with open(ours_out, "wb") as requests, open(ours_in, "rb") as answers:
            yield Tab(requests, answers)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
