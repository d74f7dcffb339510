"""Linear probes: what a linear classifier reads from frozen vectors.

Source: Alain and Bengio 2016 (arXiv:1610.01644); the classifier is multinomial logistic
regression with an L2 penalty, minimised by L-BFGS.
"""

import logging

import numpy as np
import scipy.optimize
import scipy.special

_LOGGER = logging.getLogger(__name__)

# Weights of the L2 penalty; the best on a tenth of the training examples is taken.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
_MAX_STEPS = 1000


def fit_probe(
    vectors: np.ndarray, labels: np.ndarray, num_classes: int, penalty: float
) -> np.ndarray:
    """Fits a linear classifier.

    Args:
      vectors: [n, H].
      labels: [n] integers in [0, C).
      num_classes: C.
      penalty: Half of it times the squared weights is added to the mean loss.

    Returns:
      [H + 1, C] weights; the last row is the bias, which has no penalty.
    """
    width, is_label = vectors.shape[1], np.eye(num_classes)[labels]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(width + 1, num_classes)
        logs = scipy.special.log_softmax(_logits(vectors, weights), axis=1)
        slopes = (np.exp(logs) - is_label) / len(labels)
        loss = -np.sum(logs * is_label) / len(labels)
        loss += penalty / 2.0 * np.sum(weights[:-1] ** 2)
        gradient = vectors.T @ slopes + penalty * weights[:-1]
        return loss, np.vstack([gradient, slopes.sum(axis=0)]).ravel()

    found = scipy.optimize.minimize(
        objective,
        np.zeros((width + 1) * num_classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_STEPS},
    )
    if not found.success:
        _LOGGER.warning("warning: a probe did not converge: %s.", found.message)
    return found.x.reshape(width + 1, num_classes)


def probe_accuracy(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
) -> float:
    """The accuracy in [0, 1] of a probe whose vectors are standardised.

    Args:
      train: [n, H].
      train_labels: [n] integers in [0, C).
      test: [m, H].
      test_labels: [m].
      num_classes: C.
    """
    center, scale = train.mean(axis=0, dtype=np.float64), train.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0).astype(np.float64)
    train, test = (train - center) / scale, (test - center) / scale
    order = np.random.default_rng(0).permutation(len(train))
    held_out, rest = np.split(order, [max(1, len(order) // 10)])
    penalty = PENALTIES[0]
    if rest.size:
        penalty = max(
            PENALTIES,
            key=lambda each: _accuracy(
                fit_probe(train[rest], train_labels[rest], num_classes, each),
                train[held_out],
                train_labels[held_out],
            ),
        )
    weights = fit_probe(train, train_labels, num_classes, penalty)
    return _accuracy(weights, test, test_labels)


def _logits(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return vectors @ weights[:-1] + weights[-1]


def _accuracy(weights: np.ndarray, vectors: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(_logits(vectors, weights).argmax(axis=1) == labels))
