"""Speed of the library's products against TensorFlow's, one thread, by shape.

    BERT_TF_ISA=avx512bf16 python benchmarks/products.py

For each product of a step of `base`, `small` and `tiny` (rows, depth, width): GF/s of
the product with prepacked weights, and of the gradient of the weights added up over two
micro-batches, ours and TensorFlow's: in bfloat16, or in float32 with casts where the
instruction set has no products of bfloat16 (TensorFlow itself uses whatever the
processor has). Calls take turns; each figure is the best of several, since other work
only slows calls down.
"""

import os
import time
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.modeling.backends.fused_products import prepack

SHAPES = [  # Rows, depth, width.
    (4096, 768, 2304),
    (4096, 768, 768),
    (4096, 768, 3072),
    (4096, 3072, 768),
    (640, 768, 30528),
    (4096, 512, 2048),
    (4096, 128, 384),
    (4096, 128, 512),
    (32, 768, 768),
]
ROUNDS = 15
MICRO_BATCHES = 2

Tensors = list[tf.Tensor]


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time of each call in seconds; they take turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def compare(rows: int, depth: int, width: int) -> dict[str, float]:
    """GF/s of products and gradients of the weights."""
    library = fused_ops.library()
    weights = tf.random.normal([depth, width])
    xs, dys = (
        [
            tf.cast(tf.random.normal([rows, n]), tf.bfloat16)
            for _ in range(MICRO_BATCHES)
        ]
        for n in (depth, width)
    )
    rounded, packed = tf.cast(weights, tf.bfloat16), prepack([weights])

    @tf.function
    def product(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        kernel = rounded if dtype == tf.bfloat16 else weights
        return tf.cast(tf.matmul(tf.cast(x, dtype), kernel), tf.bfloat16)

    @tf.function
    def gradients(xs: Tensors, dys: Tensors) -> tf.Tensor:
        operation, total = library.bert_kernel_gradients, []
        for x, dy in zip(xs, dys, strict=True):
            total = operation(x=x, dy=dy, sums=total, count=1, height=depth)
        return total[0]

    @tf.function
    def tf_gradients(xs: Tensors, dys: Tensors, dtype: tf.DType) -> tf.Tensor:
        total = 0.0
        for x, dy in zip(xs, dys, strict=True):
            product = tf.matmul(tf.cast(x, dtype), tf.cast(dy, dtype), transpose_a=True)
            total += tf.cast(product, tf.float32)
        return total

    dtype = tf.bfloat16 if fused_ops.in_use() in ("amx", "avx512bf16") else tf.float32
    best = timed(
        {
            "product": lambda: library.bert_product(
                x=xs[0], panels=packed.forward, added=[], width=width
            ),
            "tf product": lambda: product(xs[0], dtype),
            "gradient": lambda: gradients(xs, dys),
            "tf gradient": lambda: tf_gradients(xs, dys, dtype),
        }
    )
    operations = 2e-9 * rows * depth * width
    return {
        name: operations * (MICRO_BATCHES if "gradient" in name else 1) / seconds
        for name, seconds in best.items()
    }


def main() -> None:
    """Prints a table."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if not fused_ops.are_in_use():
        raise SystemExit(f"error: no fused operations: {fused_ops.why_missing()}")
    print(f"{fused_ops.in_use()}, GF/s")
    print("| rows x depth x width | product | TensorFlow | gradient | TensorFlow |")
    print("| - | - | - | - | - |")
    for shape in SHAPES:
        rates = compare(*shape)
        names = ("product", "tf product", "gradient", "tf gradient")
        numbers = [rates[name] for name in names]
        line = " | ".join(f"{number:.0f}" for number in numbers)
        print(f"| {' x '.join(map(str, shape))} | {line} |", flush=True)


if __name__ == "__main__":
    main()
