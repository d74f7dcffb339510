"""Update formulas of one variable: pure functions of tensors, to be compiled."""

import math
from typing import Any

import tensorflow as tf

Update = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def adam_update(
    w: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: tf.Tensor,
    step: tf.Tensor,
    **hyperparameters: Any,  # noqa: ANN401
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
    (arXiv:1711.05101, algorithm 2) with it, and like it with epsilon outside the
    root of the corrected v. Departure: its alpha and eta are one learning rate,
    which so scales the decay as well.
    """
    u, m, v = _direction(w, m, v, gradient, step, **hyperparameters)
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
    **hyperparameters: Any,  # noqa: ANN401
) -> Update:
    """One step of LAMB, of one variable.

    w -= learning_rate * ratio * u, with ratio = |w| / |u|, Euclidean norms over the
    whole variable, or 1 without `layer_adaptation`. The direction u, the other
    arguments and what is returned are those of `adam_update`.

    Source: You et al. 2020 (arXiv:1904.00962), algorithm 2, with the identity for
    its phi. Departures: the ratio is 1 where either norm is 0, which the paper
    leaves open; exclusions and no bias correction are options, as in BERT's code.
    """
    u, m, v = _direction(w, m, v, gradient, step, **hyperparameters)
    if layer_adaptation:
        w_norm, u_norm = tf.norm(w), tf.norm(u)
        ratio = tf.where(
            (w_norm > 0.0) & (u_norm > 0.0), tf.math.divide_no_nan(w_norm, u_norm), 1.0
        )
        learning_rate = learning_rate * ratio
    return w - learning_rate * u, m, v


def _direction(
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
    """The update u before any learning rate, and the new m and v."""
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


def moment_scales(
    step: tf.Tensor, beta_1: float, beta_2: float, bias_correction: bool
) -> tuple[tf.Tensor | float, tf.Tensor | float]:
    """What both moments are multiplied by at a step: 1 / (1 - beta^step), or 1."""
    if not bias_correction:
        return 1.0, 1.0
    return 1.0 / _one_minus_power(beta_1, step), 1.0 / _one_minus_power(beta_2, step)
