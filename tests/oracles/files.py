"""Real data that `make setup` fetches."""

from conftest import ROOT

DATA = ROOT / ".data"


def fetched(name):
    """Path of a fetched file; fails with what to do if it is not there."""
    path = DATA / name
    assert path.exists(), f"{path} is missing: `make setup` fetches it"
    return path
