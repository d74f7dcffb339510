"""Settings of the data commands that rewrite records: format, shards, selection."""

import dataclasses
from typing import ClassVar

from bert_tf.config import checks

RECORD_FORMATS = ("tfrecord", "hdf5")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertDataConfig:
    """Converts HDF5 to TFRecord and back (`python -m bert_tf data convert`).

    Attributes:
      input_dir: Comma-separated folders of unpacked records; * and ? are expanded.
      output_dir: Folder for the converted shards, one for each input file.
      format: tfrecord, or hdf5 (the datasets of NVIDIA's and Intel's PyTorch BERT).
      variable_length: hdf5 only: store no padding, as MLPerf's trainer reads it.
      compression: hdf5 only: none or gzip.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds other records.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input_dir", "output_dir")

    input_dir: str = ""
    output_dir: str = ""
    format: str = "hdf5"
    variable_length: bool = False
    compression: str = "none"
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_choice(self, "format", RECORD_FORMATS)
        checks.require_choice(self, "compression", ("none", "gzip"))
        checks.require_not_negative(self, "num_processes")
        is_hdf5_only = self.variable_length or self.compression != "none"
        checks.require(
            self.format == "hdf5" or not is_hdf5_only,
            "format",
            "be hdf5 where `variable_length` or `compression` is set",
            self.format,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChopDataConfig:
    """Divides records into another number of shards (`python -m bert_tf data chop`).

    Attributes:
      input_dir: Comma-separated folders of records; * and ? are expanded.
      output_dir: Folder for the shards; format and order of the records stay the same.
      num_shards: Number of shards; their sizes differ by at most one record.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds other records.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input_dir", "output_dir")

    input_dir: str = ""
    output_dir: str = ""
    num_shards: int = 2048
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_positive(self, "num_shards")
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickEvalConfig:
    """Selects evenly spaced records (`python -m bert_tf data pick_eval`).

    Attributes:
      input_dir: Comma-separated folders of records; * and ? are expanded.
      output_dir: Folder for the selected records, in the same format.
      num_examples: Number of records to select; MLPerf's evaluation set has 10,000.
      num_shards: Number of record files to write.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds other records.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input_dir", "output_dir")

    input_dir: str = ""
    output_dir: str = ""
    num_examples: int = 10_000
    num_shards: int = 1
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_positive(self, "num_examples", "num_shards")
        checks.require_not_negative(self, "num_processes")
