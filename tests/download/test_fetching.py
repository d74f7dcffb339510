import email.utils
import errno
import fcntl
import hashlib
import random
import socket
import time

import pytest
import urllib3.util.connection
from download.serving import serve, status

from bert_tf.download.fetching import Retries, fetch
from bert_tf.errors import RunError

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "checksum", [SHA256, SHA256.upper(), hashlib.sha1(CONTENT).hexdigest()]
)
def test_file_with_its_checksum_is_fetched_once(server, tmp_path, checksum):
    url = server.file("/a.bin", CONTENT)
    for _ in range(2):
        fetch(url, tmp_path / "deep" / "a.bin", checksum, server.retries)
    assert (tmp_path / "deep" / "a.bin").read_bytes() == CONTENT
    assert left(tmp_path / "deep") == ["a.bin"]
    assert len(server.requests) == 1


def test_changed_file_is_fetched_again(server, tmp_path):
    url = server.file("/a.bin", CONTENT)
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("checksum", [SHA256, ""], ids=["pinned", "not pinned"])
def test_cut_connection_is_resumed(server, tmp_path, ranges, checksum):
    url = server.sequence(
        "/a.bin",
        lambda h: serve(h, CONTENT, cut=1_500_000),
        lambda h: serve(h, CONTENT, cut=700_000, ranges=ranges),
        lambda h: serve(h, CONTENT, ranges=ranges),
    )
    fetch(url, tmp_path / "a.bin", checksum, server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    asked = [int(r[1].removeprefix("bytes=")[:-1]) for r in server.requests[1:]]
    assert all(begin > 0 for begin in asked)
    assert not list(tmp_path.glob("*.part*"))


def test_a_later_call_resumes_a_failed_download(server, tmp_path):
    url = server.sequence(
        "/a.bin",
        lambda h: serve(h, CONTENT, cut=2_000_000),
        status(503),
    )
    retries = Retries(number=2, sleep=server.waits.append)
    with pytest.raises(RunError, match=r"answers 503.*resumes.*a\.bin\.part"):
        fetch(url, tmp_path / "a.bin", SHA256, retries)
    assert not (tmp_path / "a.bin").exists()
    size = (tmp_path / "a.bin.part").stat().st_size
    assert size > 1_000_000
    server.file("/a.bin", CONTENT)
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert server.requests[-1][1] == f"bytes={size}-"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_other_version_on_the_server_is_not_appended(server, tmp_path):
    """Without a known checksum, only the ETag identifies a version."""
    other = CONTENT[::-1]
    url = server.sequence(
        "/a.bin",
        lambda h: serve(h, other, cut=1_000_000, etag='"old"'),
        lambda h: serve(h, CONTENT, etag='"new"'),
    )
    fetch(url, tmp_path / "a.bin", "", server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_complete_part_is_not_fetched_again(server, tmp_path):
    url = server.file("/a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests == [("/a.bin", f"bytes={len(CONTENT)}-")]


def test_part_longer_than_the_file_is_downloaded_from_the_start(server, tmp_path):
    url = server.file("/a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_waits_grow_and_servers_may_ask_for_one(server, tmp_path):
    url = server.sequence(
        "/a.bin",
        status(503),
        status(500),
        status(429, Retry_After="7"),
        status(503, Retry_After="100000"),
        lambda h: serve(h, CONTENT),
    )
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert server.waits == [1.0, 2.0, 7.0, 120.0]


def test_server_may_ask_to_wait_until_a_date_but_not_for_no_time(server, tmp_path):
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    url = server.sequence(
        "/a.bin",
        status(503, Retry_After=date),
        status(503, Retry_After="0"),
        lambda h: serve(h, CONTENT),
    )
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert 50 < server.waits[0] <= 60
    assert server.waits[1] == 2.0


def test_address_without_a_host_is_not_tried_again(server, tmp_path):
    with pytest.raises(
        RunError, match="`url` must be a valid URL. Received: url=http:///a"
    ):
        fetch("http:///a.bin", tmp_path / "a.bin", SHA256, server.retries)
    assert server.waits == []


def test_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    server.file("http://files.invalid/a.bin", CONTENT)
    url = "http://files.invalid/a.bin"
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_refusal_is_not_tried_again(server, tmp_path, code):
    url = server.sequence("/a.bin", status(code))
    with pytest.raises(RunError, match=f"the server answers {code}.*browser"):
        fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert len(server.requests) == 1
    assert left(tmp_path) == []


def test_server_that_is_not_there_is_given_up(tmp_path):
    retries = Retries(number=1, sleep=lambda _: None)
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/a cannot be downloaded"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a", SHA256, retries)


@pytest.mark.parametrize("proxy", ["", "http://proxy.invalid:3128"])
@pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_NONAME])
def test_name_that_does_not_resolve_is_tried_once(
    tmp_path, server, monkeypatch, number, proxy
):
    def unknown(*_, **__):
        raise socket.gaierror(number, "Temporary failure in name resolution")

    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RunError) as caught:
        fetch("https://a.invalid/b", tmp_path / "b", SHA256, server.retries)
    assert "https://a.invalid/b cannot be downloaded" in str(caught.value)
    assert "Check the network and the proxy" in str(caught.value)
    assert ".part" not in str(caught.value)
    assert server.waits == []
    assert left(tmp_path) == []


def test_no_route_to_the_server_is_not_tried_again(tmp_path, server, monkeypatch):
    def unreachable(*_, **__):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(urllib3.util.connection, "create_connection", unreachable)
    with pytest.raises(RunError, match=r"Network is unreachable.*Check the network"):
        fetch("http://1.2.3.4/b", tmp_path / "b", SHA256, server.retries)
    assert server.waits == []


def test_server_that_never_answers_is_tried_for_seconds_only(tmp_path, server):
    with pytest.raises(RunError, match="Connection refused"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a", SHA256, server.retries)
    assert server.waits == [1.0, 2.0]


def test_network_that_fails_in_a_download_is_waited_for(server, tmp_path, monkeypatch):
    url = server.sequence(
        "/a.bin",
        lambda h: serve(h, CONTENT, cut=1_000_000),
        lambda h: serve(h, CONTENT),
    )
    connect, calls = urllib3.util.connection.create_connection, []

    def sometimes(*arguments, **options):
        calls.append(1)
        if 1 < len(calls) < 5:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return connect(*arguments, **options)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", sometimes)
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.waits == [1.0, 2.0, 4.0, 8.0]


def test_advice_for_a_machine_without_a_network_works(tmp_path, server):
    path = tmp_path / "a.bin"
    with pytest.raises(RunError, match=f"elsewhere and copy it to {path}"):
        fetch("http://127.0.0.1:9/a", path, SHA256, server.retries)
    path.write_bytes(CONTENT)
    fetch("http://127.0.0.1:9/a", path, SHA256, server.retries)
    with pytest.raises(RunError) as caught:  # Without a checksum it is not known.
        fetch("http://127.0.0.1:9/a", path, "", server.retries)
    assert "copy it to" not in str(caught.value)


def test_wrong_checksum_is_refused_and_removed(server, tmp_path):
    url = server.file("/a.bin", CONTENT[:-1])
    with pytest.raises(RunError, match=f"sha256 {SHA256}. Received: .* was deleted"):
        fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    assert left(tmp_path) == []


PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(PAGE, None), (b"PK", "text/html; charset=utf-8"), (b"<HTML>x", "a/b")],
)
def test_web_page_in_place_of_a_file_is_refused(
    server, tmp_path, content, content_type
):
    url = server.file("/a.zip", content, content_type=content_type)
    with pytest.raises(RunError, match="a web page instead of the file"):
        fetch(url, tmp_path / "a.zip", "", server.retries)
    assert not (tmp_path / "a.zip").exists()


def test_other_kind_of_file_is_refused(server, tmp_path):
    url = server.file("/a.xml.bz2", b"plain")
    with pytest.raises(RunError, match="something else instead of the file"):
        fetch(url, tmp_path / "a", "", server.retries)


def test_first_checksum_of_a_file_is_stored_and_required_later(
    server, tmp_path, capsys
):
    url = server.file("/a.bin", CONTENT)
    fetch(url, tmp_path / "a.bin", "", server.retries)
    assert SHA256 in capsys.readouterr().err
    assert (tmp_path / "a.bin.sha256").read_text() == f"{SHA256}  a.bin\n"
    (tmp_path / "a.bin").unlink()
    server.file("/a.bin", CONTENT[::-1])
    with pytest.raises(RunError, match=f"sha256 {SHA256}. Received: .*a.bin.sha256"):
        fetch(url, tmp_path / "a.bin", "", server.retries)


@pytest.mark.parametrize("content", [b"", b"deadbeef  a.bin\n", b"\xff\xfe"])
def test_stored_checksum_that_is_none_is_refused_before_a_download(
    server, tmp_path, content
):
    url = server.file("/a.bin", CONTENT)
    (tmp_path / "a.bin.sha256").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.bin\.sha256 must begin.*or delete it"):
        fetch(url, tmp_path / "a.bin", "", server.retries)
    assert not server.requests
    (tmp_path / "a.bin.sha256").unlink()
    fetch(url, tmp_path / "a.bin", "", server.retries)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_redirects_are_followed_but_not_for_ever(server, tmp_path):
    server.file("/b.bin", CONTENT)
    url = server.sequence("/a.bin", status(302, Location="/b.bin"))
    fetch(url, tmp_path / "a.bin", SHA256, server.retries)
    loop = server.sequence("/loop", status(301, Location="/loop"))
    with pytest.raises(RunError, match="redirects more than 5"):
        fetch(loop, tmp_path / "c.bin", SHA256, server.retries)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a.org/b"])
def test_other_schemes_are_refused(server, tmp_path, target):
    url = server.sequence("/a.bin", status(302, Location=target))
    for address in (url, target):
        with pytest.raises(RunError, match="must begin with http or https"):
            fetch(address, tmp_path / "a.bin", SHA256, server.retries)


def test_two_processes_do_not_write_one_file(server, tmp_path):
    url = server.file("/a.bin", CONTENT)
    with open(tmp_path / "a.bin.part", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="Another process is downloading"):
            fetch(url, tmp_path / "a.bin", SHA256, server.retries)
