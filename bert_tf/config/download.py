"""Settings of downloads and of checking what was downloaded."""

import dataclasses
import re
from typing import ClassVar

from bert_tf.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Downloads data sets and weights (`python -m bert_tf data download`).

    Attributes:
      list: Only print the names that can be downloaded.
      name: What to download; several names are separated by commas.
      output_dir: Folder for the downloads; each archive is unpacked into its own
        subfolder.
      language: wikipedia only: language code, such as en or simple.
      date: wikipedia only: latest, or the date of a dump, such as 20200101.
      sha256: Expected sha256 of an archive without a published checksum, 64 hexadecimal
        digits; none: that of its first download.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("name", "output_dir")

    list: bool = False
    name: str = ""
    output_dir: str = ""
    language: str = "en"
    date: str = "latest"
    sha256: str = "none"

    def __post_init__(self) -> None:
        if not self.list:
            checks.require_given(self, *self.REQUIRED)
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
    """Checks a folder against a list of checksums (`python -m bert_tf data verify`).

    Attributes:
      folder: Folder of the files to check.
      checksum_file: A list as md5sum, sha1sum or sha256sum write it, such as MLPerf's
        bert_reference_results_text_md5.txt.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("folder", "checksum_file")

    folder: str = ""
    checksum_file: str = ""

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
