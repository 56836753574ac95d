"""Improvement: by how much a network whose accuracy is only estimated can be expected to enlarge the front.

The cheap objectives of a candidate are known exactly, its accuracy as a Gaussian. The hypervolume that it adds is, over
the costs from its own to the reference, the room between its accuracy and the best that the front has at that cost; the
expectation of that is a sum over the steps of the front, exact (expected hypervolume improvement: Emmerich et al. 2006,
https://doi.org/10.1109/TEVC.2005.859463, with all objectives but one known).
"""

from __future__ import annotations

import numpy as np

from nas.reporting.pareto import MAXIMIZE, MINIMIZE, front

CHUNK = 256  # candidates at once, where steps in two costs are a grid for each


def expected_improvement(mean: np.ndarray, sigma: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Expectation of max(0, value - level) for each Gaussian (rows) and each level (columns)."""
    from scipy.special import ndtr

    above = mean[:, None] - levels[None, :]
    spread = np.maximum(sigma, 1e-12)[:, None]
    z = above / spread
    found: np.ndarray = above * ndtr(z) + spread * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.maximum(found, 0.0)


def expected_hypervolume(
    costs: np.ndarray,
    mean: np.ndarray,
    sigma: np.ndarray,
    front_costs: np.ndarray,
    front_values: np.ndarray,
    cost_reference: np.ndarray,
    value_reference: float,
) -> np.ndarray:
    """Expected growth of the hypervolume for each candidate.

    costs (n, k) of candidates, k from 0 to 2, less is better; mean and sigma (n,) of their values, more is better;
    front_costs (m, k) and front_values (m,) of points that there are, dominated ones harmless.
    """
    count = costs.shape[1]
    if count == 0:
        return expected_improvement(mean, sigma, np.array([max(value_reference, *front_values)]))[:, 0]
    kept = front(np.column_stack([front_values, front_costs]), [MAXIMIZE, *[MINIMIZE] * count])
    front_costs, front_values = front_costs[kept], front_values[kept]  # the others are at no step of it
    edges = [np.unique(front_costs[:, axis]) for axis in range(count)]
    best = np.full([len(own) + 1 for own in edges], value_reference)
    at = tuple(np.searchsorted(own, front_costs[:, axis]) + 1 for axis, own in enumerate(edges))
    np.maximum.at(best, at, front_values)
    for axis in range(count):
        best = np.maximum.accumulate(best, axis=axis)
    levels, where = np.unique(best, return_inverse=True)
    where = where.reshape(best.shape)
    improvement = expected_improvement(mean, sigma, levels)
    widths = [_widths(costs[:, axis], own, cost_reference[axis]) for axis, own in enumerate(edges)]
    if count == 1:
        return (widths[0] * improvement[:, where]).sum(axis=1)
    return np.concatenate(
        [
            np.einsum("na,nb,nab->n", *(width[i : i + CHUNK] for width in widths), improvement[i : i + CHUNK][:, where])
            for i in range(0, len(costs), CHUNK)
        ]
        or [np.zeros(0)]
    )


def _widths(costs: np.ndarray, edges: np.ndarray, reference: float) -> np.ndarray:
    """How much of each step of a cost lies between a candidate's own cost and the reference: (n, steps)."""
    lower = np.concatenate([[-np.inf], edges])
    upper = np.minimum(np.concatenate([edges, [np.inf]]), reference)
    found: np.ndarray = np.maximum(upper[None, :] - np.maximum(lower[None, :], costs[:, None]), 0.0)
    return found
