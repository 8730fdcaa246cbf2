"""How weights and learning rate move while a network trains."""

from __future__ import annotations

import math


def imitation_weights(progress: float) -> tuple[float, float]:
    """Weigh the two terms of the imitation stage: first the features, then the probabilities.

    Half a cosine, as the paper means it (arXiv 2511.01143; its public code computes such
    weights and does not use them).

    Parameters
    ----------
    progress : float
        Share of the imitation stage that is done; taken as 0 below 0 and as 1 above 1.

    Returns
    -------
    features, probabilities : float
        In [0, 1], together 1.
    """
    features = _half_cosine(progress)
    return features, 1 - features


def learning_rate_factor(progress: float, warm_up: float, last: float) -> float:
    """Scale the peak learning rate: a linear warm-up, then a cosine.

    The cosine is that of Loshchilov and Hutter 2017 (arXiv 1608.03983, equation 5), without
    restarts. The warm-up starts from ``last`` rather than from 0, which would waste a step.

    Parameters
    ----------
    progress : float
        Share of the run that is done; taken as 1 above 1, so that a time budget may be overrun.
    warm_up : float
        Share of the run in which the rate rises, in [0, 1).
    last : float
        Factor at both ends, in [0, 1].

    Returns
    -------
    float
        In [last, 1].
    """
    if progress < warm_up:
        share = max(0.0, progress) / warm_up
    else:
        share = _half_cosine((progress - warm_up) / (1 - warm_up))
    return last + (1 - last) * share


def _half_cosine(progress: float) -> float:
    """Fall from 1 to 0."""
    return (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
