"""Settings of downloads and of checking what was downloaded."""

import dataclasses
import re

from bert_tf.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Data sets and weights from the network (`python -m bert_tf data download`).

    Attributes:
      list: Only print the names that can be fetched.
      name: What to fetch; several with commas between.
      output_dir: Folder to put it into; each archive is unpacked into its own folder.
      language: Of wikipedia: its code, such as en or simple.
      date: Of wikipedia: latest, or a dump's date, such as 20200101.
      sha256: What a file without a published sum must have, 64 hexadecimal digits;
        none: what it had when it came first.
    """

    list: bool = False
    name: str = ""
    output_dir: str = ""
    language: str = "en"
    date: str = "latest"
    sha256: str = "none"

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in () if self.list else ("name", "output_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        rules = {
            "language": (r"[a-z][a-z_]*", "be a code such as en"),
            "date": (r"latest|\d{8}", "be latest or a date such as 20200101"),
            "sha256": (r"none|[0-9a-fA-F]{64}", "be 64 hexadecimal digits"),
        }
        for name, (pattern, rule) in rules.items():
            value = getattr(self, name)
            checks.require(bool(re.fullmatch(pattern, value)), name, rule, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """A folder against a list of checksums (`python -m bert_tf data verify`).

    Attributes:
      folder: Where the files are.
      checksum_file: What md5sum, sha1sum or sha256sum write, such as MLPerf's
        bert_reference_results_text_md5.txt.
    """

    folder: str = ""
    checksum_file: str = ""

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in ("folder", "checksum_file"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
