"""A real HTTP server whose answers a test decides."""

import http.server
import threading

import pytest

from bert_tf.download.fetching import Retries


class Answers:
    """What the server gives; every request is noted.

    Attributes:
      handlers: Path -> function of the request handler.
      requests: (path, Range header) of each request.
      waits: How long the client has waited, in seconds.
    """

    def __init__(self):
        self.handlers = {}
        self.requests = []
        self.waits = []
        self.url = ""
        self.retries = Retries(sleep=self.waits.append)

    def file(self, path, content, **options):
        """Serves bytes as a well-behaved server does; see `serve`."""
        self.handlers[path] = lambda handler: serve(handler, content, **options)
        return self.url + path

    def sequence(self, path, *functions):
        """Answers with each function once, with the last one from then on."""
        left = list(functions)
        self.handlers[path] = lambda handler: (
            left.pop(0) if len(left) > 1 else left[0]
        )(handler)
        return self.url + path


def serve(handler, content, *, etag='"1"', ranges=True, cut=None, content_type=None):
    """Sends bytes, from the asked place on; `cut` closes the connection early."""
    begin, status = 0, 200
    asked = handler.headers.get("Range")
    is_same = handler.headers.get("If-Range", etag) == etag
    if asked and ranges and is_same:
        begin, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        if begin >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
    handler.send_response(status)
    if etag:
        handler.send_header("ETag", etag)
    if content_type:
        handler.send_header("Content-Type", content_type)
    if status == 206:
        place = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        handler.send_header("Content-Range", place)
    handler.send_header("Content-Length", str(len(content) - begin))
    handler.end_headers()
    handler.wfile.write(content[begin:][:cut])
    if cut is not None:
        handler.wfile.flush()
        handler.connection.shutdown(2)


def status(code, **headers):
    """A function that answers with a status alone."""

    def answer(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture
def server():
    answers = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 - the base class's name
            answers.requests.append((self.path, self.headers.get("Range")))
            answers.handlers.get(self.path, status(404))(self)

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield answers
    running.shutdown()
    running.server_close()
    thread.join()
