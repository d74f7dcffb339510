"""Checks by a file's first bytes that it has the expected kind of content."""

import re
import shlex

_HEAD_BYTES = 4096
_SIGNATURES = {
    # Some of these programs read a file of any name only from their standard input.
    b"\x1f\x8b": ("compressed (gzip)", "Unpack it with `gunzip <"),
    b"BZh": ("compressed (bzip2)", "Unpack it with `bunzip2 <"),
    b"\xfd7zXZ\x00": ("compressed (xz)", "Unpack it with `unxz <"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "Unpack it with `unzstd <"),
    b"PK\x03\x04": ("a zip archive", "Unpack it with `unzip -p"),
    b"\xff\xfe\x00\x00": ("UTF-32", "Convert it with `iconv -f UTF-32 -t UTF-8"),
    b"\x00\x00\xfe\xff": ("UTF-32", "Convert it with `iconv -f UTF-32 -t UTF-8"),
    b"\xff\xfe": ("UTF-16", "Convert it with `iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16", "Convert it with `iconv -f UTF-16 -t UTF-8"),
}
# In UTF-16 without a byte order mark every other byte is 0 for blanks and line ends at
# least, and never the ones between.
_FEWEST_ZEROS = 4
_SHARE_OF_ZEROS = 0.1
_NAMES = {"json": "JSON", "mediawiki": "a dump of MediaWiki"}
_JSON = re.compile(rb'\[?\s*\{\s*"[^"\n]*"\s*:')


def check_content(path: str, is_text: bool) -> None:
    """Refuses a file whose content is certainly of another kind.

    Args:
      path: The file.
      is_text: Whether it must be plain text; otherwise XML, JSON and bzip2 are allowed.

    Raises:
      ValueError: if it is compressed, not UTF-8 or, for plain text, JSON or an XML
        dump; the message says what to do.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    for signature, (kind, remedy) in _SIGNATURES.items():
        if head.startswith(signature) and (is_text or signature != b"BZh"):
            raise ValueError(
                f"{path} is {kind}, not text in UTF-8. {remedy} {shlex.quote(path)} > "
                "NEW`."
            )
    if head.startswith(b"BZh"):
        return
    first, second = head[::2].count(0), head[1::2].count(0)
    zeros = max(first, second)
    if not min(first, second) and zeros >= max(
        _FEWEST_ZEROS, _SHARE_OF_ZEROS * len(head) / 2
    ):
        order = "LE" if second else "BE"
        raise ValueError(
            f"{path} is not text in UTF-8: {zeros} of its first {len(head)} bytes are "
            f"0. If it is UTF-16, convert it with `iconv -f UTF-16{order} -t UTF-8 "
            f"{shlex.quote(path)} > NEW`."
        )
    if is_text:
        _check_is_plain(path, head)


def _check_is_plain(path: str, head: bytes) -> None:
    """Refuses JSON and XML, whose syntax a model would learn if read as text."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    option = ""
    if begin.startswith(b"<mediawiki"):
        option = "mediawiki"
    elif _JSON.match(begin):
        option = "json"
    elif begin.startswith(b"<doc id="):
        raise ValueError(
            f"{path} holds WikiExtractor's markup, not plain text. Run WikiExtractor "
            "with --json, and read its output with `python -m bert_tf data extract "
            "--input_format=json`."
        )
    if option:
        raise ValueError(
            f"{path} holds {_NAMES[option]}, not plain text. Extract its text with "
            f"`python -m bert_tf data extract --input_format={option}`."
        )
