"""The log lines of MLPerf Training for BERT, through its package mlperf-logging."""

import importlib
import logging
import time
from collections.abc import Mapping

from bert_tf.errors import RunError


class MLPerfLog:
    """A file of MLPerf's lines about one run; without a path, nothing is written.

    Source: the rules of the package's compliance checker for BERT, which left MLPerf
    Training in version 5.1: `--ruleset 5.0.0`. Its epochs are counted in sequences.
    """

    def __init__(self, path: str = "") -> None:
        """Opens the file, which is overwritten.

        Args:
          path: The file; empty for none.

        Raises:
          RunError: if the package is not installed, or the file cannot be written.
        """
        self._log = None
        if not path:
            return
        try:
            mllog = importlib.import_module("mlperf_logging.mllog.mllog")
        except ImportError as error:
            raise RunError(
                "`mlperf_log` needs the package mlperf-logging, which cannot be loaded "
                f"({error}). Install it with `pip install mlperf-logging`, or drop "
                "--mlperf_log."
            ) from error
        # A separate logger: the package's prints to the screen too.
        logger = logging.Logger("mlperf")
        try:
            logger.addHandler(logging.FileHandler(path, mode="w"))
        except OSError as error:
            raise RunError(
                f"`mlperf_log` cannot be written: {error}. Pass another path."
            ) from error
        self._log = mllog.MLLogger(logger)

    def event(self, key: str, value: object = None, **metadata: object) -> None:
        """Writes a line about a moment."""
        if self._log:
            self._log.event(key, value, metadata)

    def start(self, key: str, seconds_ago: float = 0.0, **metadata: object) -> None:
        """Writes a line about the start of something."""
        if self._log:
            moment = int(1000 * (time.time() - seconds_ago))
            self._log.start(key, None, metadata, time_ms=moment)

    def end(self, key: str, **metadata: object) -> None:
        """Writes a line about its end."""
        if self._log:
            self._log.end(key, None, metadata)

    def begin_run(self, seconds_ago: float, values: Mapping[str, object]) -> None:
        """Writes what precedes the first step.

        Args:
          seconds_ago: Since the process was started.
          values: Sizes and settings, by their names in the rules.
        """
        self.event("cache_clear", True)
        self.start("init_start", seconds_ago)
        for key, value in values.items():
            self.event(key, value)
        self.end("init_stop")
        self.start("run_start")
        self.start("block_start", samples_count=0)

    def evaluation(self, samples: int, accuracy: float, *, is_last: bool) -> None:
        """Writes the result of an evaluation, which ends a block.

        Args:
          samples: Sequences that were trained on.
          accuracy: Of the masked words.
          is_last: Whether no block follows.
        """
        count = {"epoch_num": samples, "samples_count": samples}
        self.end("block_stop", samples_count=samples)
        self.event("eval_accuracy", accuracy, **count)
        if not is_last:
            self.start("block_start", samples_count=samples)
