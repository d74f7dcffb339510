"""Settings of the steps that write records again: other format, shards or choice."""

import dataclasses

from bert_tf.config import checks

RECORD_FORMATS = ("tfrecord", "hdf5")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertDataConfig:
    """HDF5 to TFRecord and back (`python -m bert_tf data convert`).

    Attributes:
      input_dir: Folders of unpacked records, separated by commas; * and ? work.
      output_dir: Folder for as many shards, in the same order.
      format: tfrecord or hdf5 (datasets as the PyTorch BERT of NVIDIA and Intel has
        them).
      variable_length: Of hdf5: leave out the padding, as MLPerf's trainer reads it.
      compression: Of hdf5: none or gzip.
      num_processes: Worker processes; 0 means one per core. The output is the same.
      overwrite: Replace an output_dir that holds other records.
    """

    input_dir: str = ""
    output_dir: str = ""
    format: str = "hdf5"
    variable_length: bool = False
    compression: str = "none"
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in ("input_dir", "output_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
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
    """Records to another number of shards (`python -m bert_tf data chop`).

    Attributes:
      input_dir: Folders of records, separated by commas; * and ? work.
      output_dir: Folder for the shards, in the same format and order of records.
      num_shards: Their number; their sizes differ by one record at most.
      num_processes: Worker processes; 0 means one per core. The output is the same.
      overwrite: Replace an output_dir that holds other records.
    """

    input_dir: str = ""
    output_dir: str = ""
    num_shards: int = 2048
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in ("input_dir", "output_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        checks.require_positive(self, "num_shards")
        checks.require_shards(self, "num_shards")
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickEvalConfig:
    """Some records, drawn evenly (`python -m bert_tf data pick_eval`).

    Attributes:
      input_dir: Folders of records, separated by commas; * and ? work.
      output_dir: Folder for the chosen ones, in the same format.
      num_examples: How many; 10,000 as in MLPerf's evaluation set.
      num_shards: Number of files.
      num_processes: Worker processes; 0 means one per core. The output is the same.
      overwrite: Replace an output_dir that holds other records.
    """

    input_dir: str = ""
    output_dir: str = ""
    num_examples: int = 10_000
    num_shards: int = 1
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in ("input_dir", "output_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        checks.require_positive(self, "num_examples", "num_shards")
        checks.require_shards(self, "num_shards")
        checks.require_not_negative(self, "num_processes")
