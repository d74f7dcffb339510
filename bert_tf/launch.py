"""What the launcher says about this process, read before TensorFlow is loaded."""

import os

# Set for each process by Open MPI, by PMI launchers (MPICH, Intel MPI, srun with pmi2)
# and by horovodrun. Slurm's own variables are left out: a shell inside an allocation
# has them too.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")


def _first_number(names: tuple[str, ...], default: int) -> int:
    for name in names:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return default


def launched_rank() -> int:
    """Number of this process among those launched together, from 0."""
    return _first_number(_RANKS, 0)


def launched_size() -> int:
    """How many processes were launched together; 1 without a launcher."""
    return _first_number(_SIZES, 1)


def check_launch(horovod: bool) -> None:
    """Refuses several processes that would train the same thing side by side.

    Args:
      horovod: Whether the processes were told to work together.

    Raises:
      ValueError: if there are several and they were not.
    """
    if launched_size() > 1 and not horovod:
        raise ValueError(
            f"{launched_size()} processes were launched but `horovod` is not set: each "
            "would train alone and overwrite the others' files. Add --horovod."
        )
