"""Whether a file holds what its reader can read, by its first bytes."""

import re

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
# Of UTF-16 without a byte order mark about half of the bytes are 0.
_MOST_ZEROS = 0.2
_JSON = re.compile(rb'\[?\s*\{\s*"[^"\n]*"\s*:')


def check_content(path: str, is_text: bool) -> None:
    """Refuses a file that is certainly not what its name promises.

    Args:
      path: The file.
      is_text: Whether it must be plain text; otherwise markup, JSON and bzip2 are fine.

    Raises:
      ValueError: if it is compressed, not UTF-8 or, for plain text, JSON or an XML
        dump; the message says what to do.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    for signature, (kind, remedy) in _SIGNATURES.items():
        if head.startswith(signature) and (is_text or signature != b"BZh"):
            raise ValueError(f"{path} is {kind}, not text. {remedy} {path} > NEW`.")
    if head.startswith(b"BZh"):
        return
    if head.count(0) > _MOST_ZEROS * len(head):
        order = "LE" if head[1::2].count(0) > head[::2].count(0) else "BE"
        raise ValueError(
            f"{path} is not text in UTF-8: {head.count(0)} of its first {len(head)} "
            "bytes are 0. If it is UTF-16, convert it with `iconv -f "
            f"UTF-16{order} -t UTF-8 {path} > NEW`."
        )
    if is_text:
        _check_is_plain(path, head)


def _check_is_plain(path: str, head: bytes) -> None:
    """Read as text, JSON and XML would give a model their syntax to learn."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    option = ""
    if begin.startswith(b"<mediawiki"):
        option = "mediawiki"
    elif _JSON.match(begin):
        option = "json"
    if option:
        raise ValueError(
            f"{path} holds {option}, not plain text. `python -m bert_tf data extract "
            f"--input_format={option}` takes the text out of it."
        )
