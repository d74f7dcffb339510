"""Turns a stream of documents into a folder of files, in many processes; resumable.

The stream is cut by its own sizes alone: into parts, one file each, and these into
pieces, the tasks of worker processes. So the files do not depend on the number of
processes, and documents of finished parts are skipped without being processed.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from bert_tf.data.commands.output_folder import Stage
from bert_tf.data.output import FileWriter
from bert_tf.data.processes import in_order
from bert_tf.data.records.shards import Part
from bert_tf.progress import ProgressReport

Document = TypeVar("Document")

# Of the input. A part is small enough to look at, and to be lost in a crash.
PART_BYTES = 64 << 20
PIECE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Piece(Generic[Document]):
    """Documents that are processed together.

    Attributes:
      documents: In order.
      num_bytes: Their size in the input.
      ends_part: Whether the next piece begins a new file.
    """

    documents: list[Document]
    num_bytes: int
    ends_part: bool


def cut_into_pieces(
    documents: Iterable[tuple[Document, int]],
) -> Iterator[Piece[Document]]:
    """Cuts a stream of documents, which begins with a new part.

    Args:
      documents: Documents with their sizes in bytes.

    Yields:
      Pieces of about `PIECE_BYTES`; a part ends after about `PART_BYTES`.
    """
    part = 0
    current: list[Document] = []
    size = 0
    for document, num_bytes in documents:
        current.append(document)
        size += num_bytes
        if size >= PIECE_BYTES:
            part += size
            ends_part = part >= PART_BYTES
            yield Piece(current, size, ends_part)
            current, size = [], 0
            part = 0 if ends_part else part
    if current:
        yield Piece(current, size, True)


def process_stream(
    documents: Iterator[tuple[Document, int]],
    function: Callable[[list[Document]], tuple[bytes, Counter[str]]],
    stage: Stage,
    suffix: str,
    num_processes: int,
    progress: ProgressReport,
) -> list[Part]:
    """Applies a function to the documents, and writes its output part by part.

    Args:
      documents: All documents with their sizes in bytes, from the first one on.
      function: Turns documents into the text to write and its counts, `documents` among
        them; it runs in worker processes.
      stage: The output folder.
      suffix: Extension of the files.
      num_processes: Worker processes; 0 means one per core.
      progress: Shows the progress.

    Returns:
      All parts, those of earlier calls too.
    """
    parts = _finished_parts(stage, suffix)
    skipped = sum(part.counts["inputs"] for part in parts)
    for _, num_bytes in itertools.islice(documents, skipped):
        progress.add(num_bytes, 0)
    # Results come in the order of the pieces, so sizes are not sent to the workers.
    sent, kept = itertools.tee(cut_into_pieces(documents))
    results = in_order(function, ((p.documents,) for p in sent), num_processes)
    while (piece := next(kept, None)) is not None:
        name = _name(len(parts), suffix)
        counts: Counter[str] = Counter()
        with FileWriter(stage.folder / name) as writer:
            while piece is not None:
                text, found = next(results)
                writer.append(text)
                counts.update(found)
                counts["inputs"] += len(piece.documents)
                progress.add(piece.num_bytes, found["documents"])
                piece = None if piece.ends_part else next(kept, None)
        part = Part(name, writer.num_bytes, writer.crc32c, dict(counts))
        stage.finish(part)
        parts.append(part)
    return parts


def _name(number: int, suffix: str) -> str:
    return f"part-{number:05d}{suffix}"


def _finished_parts(stage: Stage, suffix: str) -> list[Part]:
    """The finished parts, from the first to the one before a missing one."""
    names = (_name(number, suffix) for number in itertools.count())
    found = (stage.finished(name) for name in names)
    return list(itertools.takewhile(lambda part: part is not None, found))
