"""Records read per second, with their own masks and with masks drawn while training.

    python benchmarks/reading.py --records results/records/training \
        --vocab_file .data/vocab.txt

Both readers take the same steps in turns; the medians of processor time count, since
reading is done by one thread next to the training.
"""

import argparse
import statistics
import time

from bert_tf.data.batches.dynamic_masking import make_masker
from bert_tf.data.batches.record_batches import BatchShape, TrainingReader
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.records.record_set import NO_LIMITS, open_records

ROWS = 64


def main() -> None:
    """Prints records and microseconds per record of both readers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", required=True)
    parser.add_argument("--vocab_file", required=True)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    vocab_size = sum(1 for _ in open(options.vocab_file, "rb"))
    records = open_records(options.records, NO_LIMITS)
    masker, notes = make_masker(options.vocab_file, vocab_size, records.metadata)
    print(*notes, sep="\n")
    order = RecordOrder(num_records=len(records), seed=1)
    shape = BatchShape(micro_batch_size=ROWS, num_micro_batches=1)
    readers = {
        "own masks": TrainingReader(records.parser, order, shape),
        "drawn masks": TrainingReader(records.parser, order, shape, masker=masker),
    }
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for step in range(options.steps):
        for name, reader in readers.items():
            started = time.process_time()
            reader.batch(step)
            seconds[name].append(time.process_time() - started)
    for name, times in seconds.items():
        one = statistics.median(times) / ROWS
        print(f"{name}: {1 / one:,.0f} records/s, {one * 1e6:.1f} us each")


if __name__ == "__main__":
    main()
