"""hf:// names and --push, by huggingface_hub against a hub on this machine."""

import base64
import hashlib
import http.server
import json
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest

from bert_tf.cli import main
from bert_tf.interop.hub import local_folder
from bert_tf.interop.weights import read_weights

constants = pytest.importorskip("huggingface_hub.constants")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does, as far as downloads and commits ask."""

    def log_message(self, *_):
        pass

    def reply(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        found = re.fullmatch(r"/(?:api/models/)?(\w+/\w+)/(\w+)/(\w+)/?(.*)", path)
        files = self.server.models.get(found[1]) if found else None
        if files is None:
            return self.reply({}, 404, X_Error_Code="RepoNotFound")
        if found[2] == "revision":
            return self.reply({"id": found[1], "sha": COMMIT})
        if found[2] == "tree":
            names = [(n, b) for n, b in files.items()]
            return self.reply(
                [
                    {
                        "type": "file",
                        "path": n,
                        "size": len(b),
                        "oid": hashlib.sha1(b).hexdigest(),
                    }
                    for n, b in names
                ]
            )
        self.server.fetched.add(found[4])
        body = files[found[4]]
        tag = f'"{hashlib.sha1(body).hexdigest()}"'
        return self.reply(body, ETag=tag, X_Repo_Commit=COMMIT)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.models[name] = {}
            self.server.created[name] = asked
            return self.reply({"url": f"{self.server.address}/{name}", "id": name})
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/(\w+/\w+)/(\w+)/main", self.path)
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return self.reply({"files": [{"path": name, **mode} for name in names]})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                content = base64.b64decode(value["content"])
                self.server.models[found[1]][value["path"]] = content
        url = f"{self.server.address}/{found[1]}/commit/{COMMIT}"
        return self.reply({"commitUrl": url, "commitOid": COMMIT, "success": True})


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub without models; the library's addresses and cache are its."""
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    found.address = f"http://127.0.0.1:{found.server_port}"
    found.models, found.created, found.fetched = {}, {}, set()
    monkeypatch.setattr(constants, "ENDPOINT", found.address)
    template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    local_folder.cache_clear()
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()
    local_folder.cache_clear()


def contents(folder):
    return {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir()}


def test_a_model_of_the_hub_is_converted_without_what_nobody_reads(
    server, tf1, tmp_path
):
    assert main(["convert", tf1, str(tmp_path / "made")]) == 0
    files = contents(tmp_path / "made") | {"pytorch_model.bin": b"x", "a.onnx": b"x"}
    server.models["me/tiny"] = files
    assert main(["convert", "hf://me/tiny", str(tmp_path / "out")]) == 0
    made, out = (contents(tmp_path / name) for name in ("made", "out"))
    assert made["model.safetensors"] == out["model.safetensors"]
    assert made["vocab.txt"] == out["vocab.txt"]
    assert server.fetched.isdisjoint({"pytorch_model.bin", "a.onnx", "README.md"})


def test_the_pooling_of_a_model_of_the_hub_is_fetched(server, tf1, tmp_path):
    main(["convert", tf1, str(tmp_path / "made")])
    pooling = {"modules.json": b"[]", "1_Pooling/config.json": b"{}"}
    server.models["me/tiny"] = contents(tmp_path / "made") | pooling
    read_weights("hf://me/tiny")
    assert server.fetched >= pooling.keys()


def test_a_revision_may_be_named(server, tf1, tmp_path):
    main(["convert", tf1, str(tmp_path / "made")])
    server.models["me/tiny"] = contents(tmp_path / "made")
    assert "bert/pooler/dense/bias" in read_weights("hf://me/tiny@main").tensors


def test_what_is_written_is_pushed_to_a_private_model(server, tf1, tmp_path, capsys):
    other = tmp_path / "out" / "mine.txt"
    other.parent.mkdir()
    other.write_text("private")
    out = str(tmp_path / "out")
    assert main(["convert", tf1, out, "--push=me/copy"]) == 0
    assert server.created["me/copy"]["visibility"] == "private"
    pushed = server.models["me/copy"]
    assert pushed == {n: b for n, b in contents(out).items() if n != "mine.txt"}
    assert f"uploaded to {server.address}/me/copy/commit" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, message",
    [
        ("hf://me/none", "hf://me/none cannot be fetched: .*404.* HF_TOKEN"),
        ("hf://me/empty", "hf://me/empty must hold weights of a BERT. Received: a.txt"),
        ("hf://bert", "must be hf://OWNER/NAME.* Received: hf://bert"),
    ],
)
def test_what_is_not_there_gets_one_line(server, tmp_path, capsys, name, message):
    server.models["me/empty"] = {"a.txt": b"x"}
    assert main(["convert", name, str(tmp_path / "out")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["copy", "me/copy/x", "me/copy@main", "me/copy@"])
def test_what_is_no_name_to_upload_to_is_refused_before(tf1, tmp_path, capsys, name):
    assert main(["convert", tf1, str(tmp_path / "out"), f"--push={name}"]) == 1
    assert "`push` must be hf://OWNER/NAME. Received" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_upload_that_fails_says_what_is_written(server, tf1, tmp_path, capsys):
    server.shutdown()
    server.server_close()
    out = tmp_path / "out"
    assert main(["convert", tf1, str(out), "--push=me/copy"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "me/copy cannot be written to" in line and str(out) in line
    assert line.endswith("to try again, pass --overwrite too.") and out.is_dir()


def test_a_hub_that_cannot_be_reached_gets_one_line(server, tmp_path, capsys):
    server.shutdown()
    server.server_close()
    begin = time.monotonic()
    assert main(["convert", "hf://me/tiny", str(tmp_path / "out")]) == 1
    assert time.monotonic() - begin < 5  # The package tries for 22 seconds.
    [line] = capsys.readouterr().err.splitlines()
    assert "hf://me/tiny cannot be fetched" in line and "network" in line
    assert "refuses connections" in line


def test_the_address_of_the_hub_is_known_in_a_new_process():
    """The package loads its modules on demand."""
    code = "from bert_tf.interop import hub; hub.require_hub().constants.ENDPOINT"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
