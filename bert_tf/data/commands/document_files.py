"""Turns a stream of documents into output files that do not depend on processes."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from bert_tf.data.commands.output_folder import OutputFolder
from bert_tf.data.output_files import FileWriter, OutputFile
from bert_tf.data.processes import in_order
from bert_tf.progress import ProgressReport

# Sizes of the input of one output file, and of one task of a worker process. A file is
# small enough to look at, and to be lost in a crash.
FILE_BYTES = 64 << 20
TASK_BYTES = 1 << 20

Document = TypeVar("Document")


@dataclasses.dataclass(frozen=True)
class DocumentBatch(Generic[Document]):
    """Documents that are processed together.

    Attributes:
      documents: In order.
      num_bytes: Their size in the input.
      ends_file: Whether the next batch begins a new file.
    """

    documents: list[Document]
    num_bytes: int
    ends_file: bool


def _cut_into_batches(
    documents: Iterable[tuple[Document, int]],
) -> Iterator[DocumentBatch[Document]]:
    """Batches of about `TASK_BYTES`; a file ends after about `FILE_BYTES`."""
    of_file = 0
    current: list[Document] = []
    size = 0
    for document, num_bytes in documents:
        current.append(document)
        size += num_bytes
        if size >= TASK_BYTES:
            of_file += size
            ends_file = of_file >= FILE_BYTES
            yield DocumentBatch(current, size, ends_file)
            current, size = [], 0
            of_file = 0 if ends_file else of_file
    if current:
        yield DocumentBatch(current, size, True)


def write_documents(
    documents: Iterator[tuple[Document, int]],
    function: Callable[[list[Document]], tuple[bytes, Counter[str]]],
    output: OutputFolder,
    suffix: str,
    num_processes: int,
    progress: ProgressReport,
) -> list[OutputFile]:
    """Applies a function to a stream of documents, and writes its output file by file.

    The stream is cut by its own sizes alone, so that the files do not depend on the
    number of processes; documents of finished files are skipped, not processed again.

    Args:
      documents: All documents with their sizes in bytes, from the first one on.
      function: Turns documents into the text to write and its counts, `documents` among
        them; it runs in worker processes.
      output: The output folder.
      suffix: Extension of the files.
      num_processes: Worker processes; 0 means one per core.
      progress: Shows the progress.

    Returns:
      All files, those of earlier calls too.
    """
    files: list[OutputFile] = []
    names = (f"part-{number:05d}{suffix}" for number in itertools.count())
    while file := output.finished(name := next(names)):
        files.append(file)
    skipped = sum(file.counts["inputs"] for file in files)
    for _, num_bytes in itertools.islice(documents, skipped):
        progress.add(num_bytes, 0)
    # Results come in the order of the batches, so sizes are not sent to the workers.
    sent, kept = itertools.tee(_cut_into_batches(documents))
    results = in_order(function, ((batch.documents,) for batch in sent), num_processes)
    while (batch := next(kept, None)) is not None:
        counts: Counter[str] = Counter()
        with FileWriter(output.partial_dir / name) as writer:
            while batch is not None:
                text, found_counts = next(results)
                writer.append(text)
                counts.update(found_counts)
                counts["inputs"] += len(batch.documents)
                progress.add(batch.num_bytes, found_counts["documents"])
                batch = None if batch.ends_file else next(kept, None)
        file = writer.described(counts)
        output.finish(file)
        files.append(file)
        name = next(names)
    return files
