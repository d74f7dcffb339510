"""The update of one variable: formulas of LAMB and Adam, and one fused operation."""

import math
from collections.abc import Sequence
from typing import TypedDict, Unpack

import tensorflow as tf

from bert_tf import fused_ops

Update = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class Hyperparameters(TypedDict):
    """Numbers of both formulas; see `adam_update`."""

    beta_1: float
    beta_2: float
    epsilon: float
    weight_decay_rate: float
    bias_correction: bool


def adam_update(
    w: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: tf.Tensor,
    step: tf.Tensor,
    **hyperparameters: Unpack[Hyperparameters],
) -> Update:
    """One step of Adam with decoupled weight decay, of one variable.

    u = m / (sqrt(v) + epsilon) + weight_decay_rate * w and w -= learning_rate * u,
    with the moments divided by 1 - beta^step where `bias_correction` is true.

    Args:
      w: Weights, float32, of any shape.
      m: First moment, float32, shape of `w`.
      v: Second moment, float32, shape of `w`, >= 0.
      gradient: Gradient, float32, shape of `w`.
      learning_rate: Rate of this step, float32 scalar.
      step: Number of this step, float32 scalar, from 1.
      **hyperparameters: Python numbers `beta_1`, `beta_2`, `epsilon`,
        `weight_decay_rate`, and the boolean `bias_correction`.

    Returns:
      The new w, m and v.

    Source: google-research/bert without the correction; Loshchilov and Hutter 2019
    (arXiv:1711.05101, algorithm 2) with it; there too epsilon is outside the root of
    the corrected v. Departure: its alpha and eta are one learning rate, which thus
    scales the decay as well.
    """
    u, m, v = direction(w, m, v, gradient, step, **hyperparameters)
    return w - learning_rate * u, m, v


def lamb_update(
    w: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: tf.Tensor,
    step: tf.Tensor,
    *,
    layer_adaptation: bool,
    **hyperparameters: Unpack[Hyperparameters],
) -> Update:
    """One step of LAMB, of one variable.

    w -= learning_rate * ratio * u, with ratio = |w| / |u|, Euclidean norms over the
    whole variable, or 1 without `layer_adaptation`. The direction u, the other
    arguments and what is returned are those of `adam_update`.

    Source: You et al. 2020 (arXiv:1904.00962), algorithm 2, with the identity for
    its phi. Departures: the ratio is 1 where either norm is 0, which the paper
    leaves open; exclusions and no bias correction are options, as in BERT's code.
    """
    u, m, v = direction(w, m, v, gradient, step, **hyperparameters)
    if layer_adaptation:
        learning_rate = learning_rate * trust_ratio(tf.norm(w), tf.norm(u))
    return w - learning_rate * u, m, v


def trust_ratio(w_norm: tf.Tensor, u_norm: tf.Tensor) -> tf.Tensor:
    """|w| / |u| of each variable; 1 where either norm is 0."""
    are_positive = (w_norm > 0.0) & (u_norm > 0.0)
    return tf.where(are_positive, tf.math.divide_no_nan(w_norm, u_norm), 1.0)


def direction(
    w: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    gradient: tf.Tensor,
    step: tf.Tensor,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay_rate: float,
    bias_correction: bool,
) -> Update:
    """The update u before any learning rate, and the new m and v; see `adam_update`."""
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * tf.square(gradient)
    m_hat, v_hat = m, v
    if bias_correction:
        m_hat = m / _one_minus_power(beta_1, step)
        v_hat = v / _one_minus_power(beta_2, step)
    u = m_hat / (tf.sqrt(v_hat) + epsilon)
    return u + weight_decay_rate * w, m, v


def _one_minus_power(beta: float, step: tf.Tensor) -> tf.Tensor:
    """1 - beta^step, float32 scalar.

    By expm1: subtracting 0.999 from 1 in float32 is wrong in the fifth digit.
    """
    return -tf.math.expm1(step * (math.log(beta) if beta else -math.inf))


def update_in_place(
    variable: tf.Variable,
    slots: Sequence[tf.Variable],
    gradient: tf.Tensor,
    scale: tf.Tensor | None,
    learning_rate: tf.Tensor,
    step: tf.Tensor,
    *,
    layer_adaptation: bool,
    **hyperparameters: Unpack[Hyperparameters],
) -> None:
    """Assigns the result of `lamb_update` or `adam_update`, by one fused operation.

    It reads and writes 40 bytes for each weight with LAMB, 28 with Adam, and allocates
    no tensor: 0.14 s and 0.09 s for 108 million weights on two cores.

    Args:
      variable: Weights, float32.
      slots: Both moments.
      gradient: float32, of the same shape.
      scale: Factor of the gradient, float32 scalar; None for 1.
      learning_rate: float32 scalar.
      step: Number of this step, float32 scalar, from 1.
      layer_adaptation: Whether the learning rate is multiplied by the trust ratio.
      **hyperparameters: See `adam_update`.
    """
    beta_1, beta_2 = hyperparameters["beta_1"], hyperparameters["beta_2"]
    scales = 1.0, 1.0
    if hyperparameters["bias_correction"]:
        scales = (
            1.0 / _one_minus_power(beta_1, step),
            1.0 / _one_minus_power(beta_2, step),
        )
    factor = 1.0 if scale is None else scale
    scalars = [learning_rate, factor, *scales, 1.0 - beta_1, 1.0 - beta_2]
    fused_ops.library().bert_adam_step(
        weights=variable.handle,
        first_moment=slots[0].handle,
        second_moment=slots[1].handle,
        gradient=gradient,
        scalars=tf.stack([tf.cast(x, tf.float32) for x in scalars]),
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=hyperparameters["epsilon"],
        weight_decay_rate=hyperparameters["weight_decay_rate"],
        layer_adaptation=layer_adaptation,
    )
