"""A stream of documents to a folder of files, by many processes, going on after a stop.

The stream is cut by its own sizes alone: into parts, one file each, and these into
pieces, one worker's work each. So the files do not depend on how many work, and what is
finished is skipped in the stream without being worked on.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from bert_tf.data.output import FileWriter
from bert_tf.data.parts import Part
from bert_tf.data.stage import Stage
from bert_tf.data.workers import in_order
from bert_tf.progress import ProgressReport

Document = TypeVar("Document")

# Of the input. A part is small enough to look at, and to lose when the power fails.
PART_BYTES = 64 << 20
PIECE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Piece(Generic[Document]):
    """Documents that are worked on at once.

    Attributes:
      documents: In their order.
      num_bytes: Their size in the input.
      ends_part: Whether the next piece begins a new file.
    """

    documents: list[Document]
    num_bytes: int
    ends_part: bool


def cut_into_pieces(
    documents: Iterable[tuple[Document, int]],
) -> Iterator[Piece[Document]]:
    """Cuts a stream that begins with a new part.

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
    """Writes what a function makes of the documents, part by part.

    Args:
      documents: Documents with their sizes in bytes, from the first one on.
      function: Makes the text of some documents, and counts, `documents` at least; it
        and they are sent to worker processes.
      stage: Where parts are written, and noted when they are done.
      suffix: End of the files' names.
      num_processes: Worker processes; 0 means one per core.
      progress: Is told what is done.

    Returns:
      All parts, those of earlier calls too.
    """
    parts = _finished_parts(stage, suffix)
    skipped = sum(part.counts["inputs"] for part in parts)
    for _, num_bytes in itertools.islice(documents, skipped):
        progress.add(num_bytes, 0)
    # The results need their pieces' sizes, which need not travel to the workers and
    # back: both come in the same order.
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
    """The finished parts from the first on without a gap."""
    names = (_name(number, suffix) for number in itertools.count())
    found = (stage.finished(name) for name in names)
    return list(itertools.takewhile(lambda part: part is not None, found))
