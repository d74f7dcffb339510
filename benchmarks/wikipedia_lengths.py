"""Lengths of Wikipedia's sequences of at most 512 tokens.

They have the published shape (Krell et al. 2021, arXiv:2107.02027, figure 1 and table
1: mean 255.8, 23.4% of the sequences full): full ones with that share, all others from
a density l^0.6 exp(-l / t) on 1 .. 511, with t such that the mean is the published one.
"""

import numpy as np
import scipy.optimize

SIZE = 512
_MEAN, _FULL_SHARE = 255.83, 0.234
_MIN_LENGTH = 8  # [CLS] a [SEP] b [SEP] with some text in it.


def wikipedia_shares() -> np.ndarray:
    """Share of the sequences of each length: [513], zero below `_MIN_LENGTH`."""
    lengths = np.arange(SIZE + 1)

    def shares(scale: float) -> np.ndarray:
        density = lengths**0.6 * np.exp(-lengths / scale)
        density[:_MIN_LENGTH] = density[SIZE] = 0.0
        result = (1 - _FULL_SHARE) * density / density.sum()
        result[SIZE] = _FULL_SHARE
        return result

    def excess(scale: float) -> float:
        return shares(scale) @ lengths - _MEAN

    return shares(scipy.optimize.brentq(excess, 10, 10_000))
