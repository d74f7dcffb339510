"""The benchmark of two workers against one."""

import pytest

from benchmarks import workers


def test_without_the_records_it_says_what_makes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workers, "RECORDS", tmp_path / "training")
    monkeypatch.setattr("sys.argv", ["workers.py"])
    with pytest.raises(SystemExit) as ended:
        workers.main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert f"no records in {tmp_path}/training" in error
    assert "make demo" in error and "data all --config=demo.toml" in error
