"""How well vectors find the texts that belong together."""

import numpy as np

_ROWS_AT_ONCE = 1024


def retrieval_metrics(
    anchors: np.ndarray, candidates: np.ndarray, wanted: np.ndarray
) -> dict[str, float]:
    """Ranks all candidates for each anchor, by their cosine.

    Args:
      anchors: [n, H] vectors of length 1.
      candidates: [m, H] vectors of length 1, of different texts.
      wanted: [n] the candidate that belongs to each anchor.

    Returns:
      `accuracy_at_1` and `accuracy_at_10`, shares of the anchors in [0, 1] whose
      candidate is among the first, and `mrr`, the mean of 1 / rank. A rank is 1 plus
      the number of candidates that are nearer, and half of those that are as near.
    """
    ranks = np.empty(len(anchors))
    for first in range(0, len(anchors), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        scores = anchors[rows] @ candidates.T
        own = np.take_along_axis(scores, wanted[rows, None], axis=1)
        nearer, equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
        ranks[rows] = 1 + nearer + (equal - 1) / 2
    return {
        "accuracy_at_1": float(np.mean(ranks <= 1)),
        "accuracy_at_10": float(np.mean(ranks <= 10)),
        "mrr": float(np.mean(1 / ranks)),
    }
