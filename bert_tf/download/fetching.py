"""Downloads one file over HTTP: resumed, retried, checked, and then renamed.

urllib3's `Retry` counts the attempts of one request and resends it as it was; here each
attempt asks for the rest of the file only, and any progress starts the count again.
"""

import contextlib
import dataclasses
import errno
import os
import re
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import urllib3

from bert_tf.errors import RunError
from bert_tf.files import file_checksum, lock, write_whole
from bert_tf.progress import ProgressReport

_BYTES_AT_ONCE = 1 << 20
_MAX_REDIRECTS = 5
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_MAX_WAIT_SECONDS = 120.0
# Before the first answer: a machine that is offline stays so.
_MAX_RETRIES_UNREACHED = 2
_NO_ROUTE = (
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN),
    *(errno.EHOSTDOWN, errno.EADDRNOTAVAIL),
)
# Wikimedia asks programs to identify themselves.
_USER_AGENT = "bert_tf"
# Number of hexadecimal digits -> algorithm.
CHECKSUMS = {32: "md5", 40: "sha1", 64: "sha256"}
_MAGIC = {".zip": b"PK", ".bz2": b"BZh", ".gz": b"\x1f\x8b"}


class _TemporaryError(Exception):
    """A failure that a retry may fix; the server asks to wait `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclasses.dataclass(frozen=True)
class Retries:
    """When to retry.

    Attributes:
      number: Maximum number of retries in a row without progress. A server that never
        answered is tried three times at most, one without address or route once.
      first_wait_seconds: Time before the first retry; doubled each time.
      sleep: Waits for so many seconds.
    """

    number: int = 6
    first_wait_seconds: float = 1.0
    sleep: Callable[[float], None] = time.sleep


def fetch(
    url: str, path: Path, checksum: str = "", retries: Retries | None = None
) -> None:
    """Downloads a file, unless a valid one exists.

    `<path>.part` holds an incomplete download, which a later call resumes, and is
    renamed once the file is complete and checked. Of a file without a published
    checksum, the sha256 of the first download is written to `<path>.sha256`; later
    downloads must match it.

    Args:
      url: http or https.
      path: The file to write.
      checksum: Its md5, sha1 or sha256, if known.
      retries: When to retry.

    Raises:
      RunError: if the server refuses, sends something else, or fails too often; if
        the file has another checksum, or the stored one is none; or if another
        process is downloading it.
    """
    checksum = checksum or _stored_checksum(path)
    if is_valid(path, checksum):
        print(f"{path} exists already, with the right checksum.", file=sys.stderr)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(f"{path}.part")
    with open(part, "ab") as file:
        lock(file, f"downloading {part}")
        if not _has_path(file, part):  # Another process has renamed or deleted it.
            return fetch(url, path, checksum, retries)
        try:
            _receive_all(url, file, path, part, checksum, retries or Retries())
        except RunError:
            if not part.stat().st_size:
                part.unlink()
            raise
        _check(url, path, part, checksum)


def _stored_checksum(path: Path) -> str:
    """The sha256 of an earlier download; empty if none is stored."""
    stored = Path(f"{path}.sha256")
    if not stored.exists():
        return ""
    content = stored.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"[0-9a-fA-F]{64}\b", content)
    if not found:
        raise RunError(
            f"{stored} must begin with the sha256 of {path.name}. Received: "
            f"{content[:80]!r}. Correct it, or delete it to accept any version."
        )
    return found[0]


def is_valid(path: Path, checksum: str) -> bool:
    """Whether a file exists and has this md5, sha1 or sha256."""
    if not path.is_file() or len(checksum) not in CHECKSUMS:
        return False
    return file_checksum(path, CHECKSUMS[len(checksum)]) == checksum.lower()


def _has_path(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _receive_all(
    url: str, file: BinaryIO, path: Path, part: Path, checksum: str, retries: Retries
) -> None:
    """Requests the rest of the file until it is complete."""
    etag = Path(f"{part}.etag")
    if not checksum and not etag.exists():
        file.truncate(0)  # Without either, a changed file would not be noticed.
    failures, has_answered = 0, False
    while True:
        before = file.tell()
        try:
            _receive(url, file, etag)
            break
        except (urllib3.exceptions.HTTPError, _TemporaryError) as error:
            _refuse_if_final(url, error)
            failures = 1 if file.tell() > before else failures + 1
            unreached = _unreached(error)
            has_answered |= unreached is None
            limit = retries.number
            if not has_answered:
                limit = min(limit, _MAX_RETRIES_UNREACHED * _may_be_reached(unreached))
            if failures > limit:
                advice = "The same command tries again."
                if file.seek(0, os.SEEK_END):
                    advice = f"The same command resumes the download, so far in {part}."
                if not has_answered:
                    advice = f"Check the network and the proxy (HTTPS_PROXY). {advice}"
                    advice += _by_hand(path, checksum)
                raise RunError(
                    f"{url} cannot be downloaded: {_reason(error)}. {advice}"
                ) from None
            wait = retries.first_wait_seconds * 2 ** (failures - 1)
            wait = min(max(wait, getattr(error, "wait", 0.0)), _MAX_WAIT_SECONDS)
            print(f"{_reason(error)}; retrying in {wait:.0f} s", file=sys.stderr)
            retries.sleep(wait)
    etag.unlink(missing_ok=True)


def _refuse_if_final(url: str, error: Exception) -> None:
    """Raises what no retry fixes: a wrong URL, or a certificate that is not valid."""
    if isinstance(error, urllib3.exceptions.LocationValueError):
        raise RunError(f"`url` must be a valid URL. Received: url={url}.") from None
    causes = (error, *error.args)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        raise RunError(
            f"{url}: the server's certificate is not valid: {_reason(error)}. Check "
            "the URL and the proxy."
        ) from None


def _unreached(error: Exception) -> Exception | None:
    """The reason why there was no connection, to the server or a proxy; else None."""
    cause = getattr(error, "original_error", error)
    kinds = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
    )
    return cause if isinstance(cause, kinds) else None


def _may_be_reached(error: Exception | None) -> bool:
    """Whether a later attempt may connect: not without an address or a route."""
    number = getattr(error.__cause__, "errno", None) if error else None
    is_unknown = isinstance(error, urllib3.exceptions.NameResolutionError)
    return not is_unknown and number not in _NO_ROUTE


def _by_hand(path: Path, checksum: str) -> str:
    """How to go without the network; empty if the file would not be recognised."""
    if not checksum:
        return ""
    return f" Or download the file elsewhere and copy it to {path}."


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())


def _receive(url: str, file: BinaryIO, etag: Path) -> None:
    """Makes one request; its content is appended to the file, or replaces it."""
    offset = file.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity", "User-Agent": _USER_AGENT}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if etag.exists():
            headers["If-Range"] = etag.read_text(encoding="latin-1")
    response = _open(url, headers)
    try:
        if response.status == 416 and offset:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(offset):
                return  # The file was complete already.
            file.truncate(0)
            raise _TemporaryError("the server has no such range")
        _check_status(response, url, offset)
        if response.status == 200:
            file.truncate(0)
        _store_etag(etag, response.headers.get("ETag", ""))
        length = int(response.headers.get("Content-Length") or 0)
        with ProgressReport(length, "MiB") as progress:
            for block in response.stream(_BYTES_AT_ONCE, decode_content=False):
                if not file.tell():
                    _check_beginning(url, response, block)
                file.write(block)
                progress.add(len(block), len(block) / 2**20)
    finally:
        file.flush()
        response.close()


def _store_etag(etag: Path, value: str) -> None:
    """Stores the ETag of this version of the file; a weak one does not identify it."""
    if value and not value.startswith("W/"):
        etag.write_text(value, encoding="latin-1")
    else:
        etag.unlink(missing_ok=True)


def _open(url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """Follows redirects, but none from https to http."""
    for _ in range(_MAX_REDIRECTS):
        if urlsplit(url).scheme not in ("http", "https"):
            raise RunError(f"`url` must begin with http or https. Received: url={url}.")
        response = _pool(url).request(
            "GET", url, headers=headers, preload_content=False, redirect=False
        )
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        target = urljoin(url, location)
        if urlsplit(url).scheme == "https" != urlsplit(target).scheme:
            raise RunError(
                f"{url} redirects to {target}, which is not encrypted. Use another URL."
            )
        url = target
    raise RunError(f"{url} redirects more than {_MAX_REDIRECTS} times. Check the URL.")


def _pool(url: str) -> urllib3.PoolManager:
    """Connections as the user's proxy settings want them (HTTPS_PROXY, NO_PROXY)."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager(timeout=_TIMEOUT, retries=False)
    return urllib3.ProxyManager(proxy, timeout=_TIMEOUT, retries=False)


def _check_status(response: urllib3.BaseHTTPResponse, url: str, offset: int) -> None:
    status = response.status
    if status == 429 or status >= 500:
        wait = 0.0
        with contextlib.suppress(urllib3.exceptions.InvalidHeader):
            wait = urllib3.Retry().get_retry_after(response) or 0.0
        raise _TemporaryError(f"the server answers {status}", wait)
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if status == 206 and found and int(found[1]) == offset:
        return
    if status != 200:
        raise RunError(
            f"{url} cannot be downloaded: the server answers {status} "
            f"{response.reason}. Check the URL, or open it with a browser: perhaps a "
            "licence must be accepted."
        )


def _check_beginning(
    url: str, response: urllib3.BaseHTTPResponse, block: bytes
) -> None:
    """Refuses a web page that is served instead of the file."""
    magic = _MAGIC.get(os.path.splitext(urlsplit(url).path)[1], b"")
    is_page = "html" in response.headers.get("Content-Type", "").lower()
    is_page |= block.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
    if is_page or not block.startswith(magic):
        what = "a web page" if is_page else "something else"
        raise RunError(
            f"{url} returns {what} instead of the file. Open it with a browser: "
            "perhaps a licence must be accepted, or a proxy asks for a login."
        )


def _check(url: str, path: Path, part: Path, checksum: str) -> None:
    """Checks a complete download, and renames or deletes it."""
    algorithm = CHECKSUMS[len(checksum)] if checksum else "sha256"
    found = file_checksum(part, algorithm)
    if checksum and found != checksum.lower():
        part.unlink()
        raise RunError(
            f"{url} must have the {algorithm} {checksum}. Received: {found}. The "
            "download was deleted: it is damaged, or another version of the file. Try "
            f"again. To accept another version, delete {path}.sha256, if it exists."
        )
    if not checksum:
        write_whole(f"{path}.sha256", f"{found}  {path.name}\n")
        print(f"sha256 of {path}: {found} (none is published)", file=sys.stderr)
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
