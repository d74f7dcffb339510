"""Random calls of the compiled operations: right ones, and how to spoil them.

A call is a name, tensors by argument as NumPy arrays (see `guarded.HALF`) or lists of
them, and attributes.
"""

import numpy as np
from fused_ops.guarded import HALF, to_half

WIDTHS = (1, 2, 7, 16, 31, 32, 33, 64, 100)
BLOCKS = (32, 64, 96)


class Draw:
    """Random numbers of the kinds that operations read."""

    def __init__(self, rng):
        self.rng = rng

    def one(self, values):
        return values[self.rng.integers(len(values))]

    def size(self, end):
        return int(self.rng.integers(end))

    def floats(self, *shape):
        return self.rng.normal(size=shape).astype(np.float32)

    def halves(self, *shape):
        return to_half(self.rng.normal(size=shape))

    def activations(self):
        """What draws the activations of a call: bfloat16 or float32."""
        return self.one((self.halves, self.floats))

    def like(self, values):
        numbers = self.halves if values.dtype == HALF else self.floats
        return numbers(*values.shape)

    def leading(self):
        return [self.size(5) for _ in range(self.size(4))]

    def dropout(self):
        kept = self.one((1, 128, 230, 255, 256))
        return {"stream": self.size(100), "kept": int(kept)}

    def rows(self):
        """A mask [B, S], a seed, and the leading axes of tensors of its tokens."""
        batch, length = self.size(4), 1 + self.size(70)
        counts = self.rng.integers(length + 1, size=batch)
        mask = (np.arange(length) < counts[:, None]).astype(np.int32)
        mask *= 1 + np.arange(length, dtype=np.int32) // self.one((5, 40))
        tokens = int(counts.sum())
        is_short = self.size(2) == 1 and tokens < mask.size
        seed = self.rng.integers(-9, 99, size=(batch, 3)).astype(np.int32)
        shared = {"input_mask": mask, "seed": seed}
        return shared, [tokens] if is_short else [batch, length]


def bias_gelu(draw):
    width, numbers = draw.one(WIDTHS), draw.activations()
    tensors = {"x": numbers(*draw.leading(), width), "bias": draw.floats(width)}
    return tensors, {"approximate": draw.size(2) == 1}


def bias_gelu_grad(draw):
    tensors, attributes = bias_gelu(draw)
    return tensors | {"dy": draw.like(tensors["x"])}, attributes


def dropout_add_norm(draw):
    width = draw.one(WIDTHS)
    shared, leading = draw.rows()
    numbers = draw.activations()
    tensors = {name: numbers(*leading, width) for name in ("x", "residual")}
    tensors |= {name: draw.floats(width) for name in ("bias", "gamma", "beta")}
    return tensors | shared, draw.dropout() | {"epsilon": 1e-12}


def dropout_add_norm_grad(draw):
    width = draw.one(WIDTHS)
    shared, leading = draw.rows()
    numbers = draw.activations()
    tensors = {name: numbers(*leading, width) for name in ("dy", "sum")}
    statistics = draw.floats(int(np.prod(leading)), 2)
    tensors |= {"statistics": statistics, "gamma": draw.floats(width)}
    return tensors | shared, draw.dropout()


def cross_entropy(draw):
    rows, size = draw.size(9), 1 + draw.size(100)
    return {
        "logits": draw.activations()(rows, size + draw.one((0, 0, 1, 31))),
        "bias": draw.floats(size),
        "labels": draw.rng.integers(size, size=rows).astype(np.int32),
    }, {}


def cross_entropy_grad(draw):
    tensors, _ = cross_entropy(draw)
    rows = len(tensors["labels"])
    others = {"normalisers": draw.floats(rows), "dlosses": draw.floats(rows)}
    return tensors | others, {}


def square_sum(draw):
    return {
        "tensors": [draw.floats(*draw.leading()) for _ in range(1 + draw.size(3))]
    }, {}


def adam_step(draw):
    shape = draw.leading()
    variables = ("weights", "first_moment", "second_moment")
    tensors = {name: np.abs(draw.floats(*shape)) for name in variables}
    tensors |= {"gradient": draw.floats(*shape), "scalars": np.ones(6, np.float32)}
    betas = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6}
    return tensors, betas | {
        "weight_decay_rate": 0.01,
        "layer_adaptation": draw.size(2) == 1,
    }


def pack_kernels(draw):
    count = 1 + draw.size(3)
    shape = (draw.one(WIDTHS), draw.one(WIDTHS if count == 1 else BLOCKS))
    return {"kernels": [draw.floats(*shape) for _ in range(count)]}, {}


def product(draw):
    depth, has_added = draw.one(BLOCKS), draw.size(2) == 1
    width = int(draw.one(BLOCKS if has_added else WIDTHS))
    leading, panels = draw.leading(), depth * (-(-width // 32) * 32)
    added = [draw.halves(*leading, width)] if has_added else []
    x = draw.halves(*leading, depth)
    tensors = {"x": x, "panels": draw.halves(panels), "added": added}
    return tensors, {"width": width}


def product_gelu(draw):
    depth, width = draw.one(BLOCKS), draw.one(BLOCKS)
    return {
        "x": draw.halves(*draw.leading(), depth),
        "panels": draw.halves(depth * width),
        "bias": draw.floats(width),
    }, {"width": int(width), "approximate": draw.size(2) == 1}


def kernel_gradients(draw):
    depth, width, count = draw.one(WIDTHS), draw.one(WIDTHS), 1 + draw.size(3)
    height, leading = 1 + draw.size(depth), draw.leading()
    sums = [draw.floats(height, width) for _ in range(count * draw.size(2))]
    return {
        "x": draw.halves(*leading, depth),
        "dy": draw.halves(*leading, count * width),
        "sums": sums,
    }, {"count": count, "height": height}


def attention(draw):
    heads, head = 1 + draw.size(3), draw.one((32, 64))
    shared, leading = draw.rows()
    width = 3 * heads * head
    tensors = {"x": draw.activations()(*leading, width), "bias": draw.floats(width)}
    queries = np.zeros((0, 0), np.int32)
    if draw.size(2) == 1:  # Some of the tokens that x has.
        is_read = draw.rng.random(shared["input_mask"].shape) < draw.one(
            (0.0, 0.1, 1.0)
        )
        queries = (is_read & (shared["input_mask"] > 0)).astype(np.int32)
    return tensors | shared | {"queries": queries}, draw.dropout() | {"heads": heads}


def attention_grad(draw):
    tensors, attributes = attention(draw)
    width = tensors["x"].shape[-1] // 3
    batch, length = tensors["input_mask"].shape
    normalisers = draw.floats(batch, attributes["heads"], length)
    dy = draw.like(tensors["x"][..., :width])
    if tensors["queries"].size:
        numbers = draw.halves if dy.dtype == HALF else draw.floats
        dy = numbers(int(np.count_nonzero(tensors["queries"])), width)
    return tensors | {"normalisers": normalisers, "dy": dy}, attributes


OPERATIONS = (
    bias_gelu,
    bias_gelu_grad,
    dropout_add_norm,
    dropout_add_norm_grad,
    cross_entropy,
    cross_entropy_grad,
    square_sum,
    adam_step,
    pack_kernels,
    product,
    product_gelu,
    kernel_gradients,
    attention,
    attention_grad,
)

OTHER_TYPES = {
    HALF: np.float16,
    np.dtype(np.float32): np.float64,
    np.dtype(np.int32): np.int64,
}
ODD_INTEGERS = (-1, 0, 1, 3, 33, 257, 2**31, 2**62, 2**63 - 1, -(2**63))
ODD_FLOATS = (np.nan, np.inf, -np.inf, 1e4, -1.0)
ODD_LABELS = (-1, 2**31 - 1, -(2**31), 100, 2)


def _other_shape(draw, shape):
    shape, place = list(shape), draw.size(max(1, len(shape)))
    match draw.size(6) if shape else 0:
        case 0:
            shape.insert(place, draw.one((0, 1, 2)))
        case 1:
            del shape[place]
        case 2:
            shape[place] = 0
        case 3:
            shape[place] += 1
        case 4:
            shape[place] = max(0, shape[place] - 1)
        case 5:
            shape = draw.leading()
    return shape


def _spoil_array(draw, values):
    """Another shape, type, or numbers."""
    match draw.size(4):
        case 0 | 1:
            return np.resize(values, _other_shape(draw, values.shape))
        case 2:
            return values.astype(OTHER_TYPES.get(values.dtype, np.float32))
    values = np.array(values)
    if values.size:
        place = draw.size(values.size)
        if values.dtype.kind == "i":
            values.flat[place] = draw.one(ODD_LABELS)
        else:
            odd = draw.one(ODD_FLOATS)
            values.flat[place] = to_half(odd) if values.dtype == HALF else odd
    return values


def spoil(draw, tensors, attributes):
    """Changes one argument, in place."""
    name = draw.one([*tensors, *attributes])
    if isinstance(tensors.get(name), list):
        rows = tensors[name]
        match draw.size(3) if rows else 0:
            case 0:
                rows.append(draw.one(rows) if rows else draw.halves(2))
            case 1:
                rows.pop()
            case 2:
                rows[0] = _spoil_array(draw, rows[0])
    elif name in tensors:
        tensors[name] = _spoil_array(draw, tensors[name])
    elif isinstance(attributes[name], bool):
        attributes[name] = not attributes[name]
    elif isinstance(attributes[name], float):
        attributes[name] = float(draw.one(ODD_FLOATS))
    else:
        attributes[name] = draw.one(ODD_INTEGERS)
