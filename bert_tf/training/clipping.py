"""The norm of all gradients together, and clipping by it."""

from collections.abc import Sequence

import tensorflow as tf

from bert_tf import fused_ops


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """The Euclidean norm of all gradients together.

    Args:
      gradients: Dense float32 tensors.

    Returns:
      A float32 scalar, not finite if any gradient is not.
    """
    if fused_ops.are_in_use():
        return tf.sqrt(fused_ops.library().bert_square_sum(tensors=gradients))
    # L2Loss reads each tensor once; the sum of squares would write them all first.
    # Stacked: TensorFlow adds the terms of add_n in the order in which they are ready.
    return tf.sqrt(2.0 * tf.reduce_sum(tf.stack([tf.nn.l2_loss(g) for g in gradients])))


def clip_scale(norm: tf.Tensor, max_norm: float) -> tf.Tensor:
    """What to multiply gradients by for a global norm of at most `max_norm`.

    Args:
      norm: Theirs, float32 scalar.
      max_norm: The largest norm allowed; 0: no clipping.

    Returns:
      A float32 scalar in (0, 1].

    Source: Pascanu et al. 2013 (arXiv:1211.5063), algorithm 1.
    """
    return max_norm / tf.maximum(norm, max_norm) if max_norm else tf.constant(1.0)


def clip_by_global_norm(
    gradients: Sequence[tf.Tensor], max_norm: float
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scales gradients down to a global norm.

    Args:
      gradients: Dense float32 tensors.
      max_norm: The largest norm allowed; 0: no clipping.

    Returns:
      The gradients, and their norm before.
    """
    norm = global_norm(gradients)
    scale = clip_scale(norm, max_norm)
    return [g * scale for g in gradients], norm
