"""The fixture of all tests of downloads."""

from download.serving import server

__all__ = ["server"]
