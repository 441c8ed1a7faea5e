"""What repeated timings say: medians and ratios with their 95 % intervals. Pure functions of the numbers.

Two things are compared by alternating trials (a, b, a, b, ...): whatever else the machine does is then in both, and
each pair gives one ratio.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t for 95 % (two-sided) and 1 to 30 degrees of freedom; from there on 1.96 + 2.4 / df is within 0.001.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Estimate:
    """A value of n measurements, with the 95 % interval where so few of them give one."""

    value: float
    low: float | None
    high: float | None
    n: int


def paired_ratio(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """How many times b each a is: the geometric mean of a[i] / b[i], its interval by t on the logarithms.

    The numbers are positive, and there is at least one pair; a single one has no interval.
    """
    logs = [math.log(x / y) for x, y in zip(a, b, strict=True)]
    mean, n = statistics.fmean(logs), len(logs)
    if n < 2:
        return Estimate(math.exp(mean), None, None, n)
    reach = _t(n - 1) * statistics.stdev(logs) / math.sqrt(n)
    return Estimate(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), n)


def median_interval(values: Sequence[float]) -> Estimate:
    """The median, and the order statistics that hold it between them 95 times of 100; they take 6 values at least."""
    ordered, n = sorted(values), len(values)
    # The median is below the k-th smallest value when fewer than k values are below the median: Binomial(n, 1/2).
    k, below = 0, 0
    while (below := below + math.comb(n, k)) <= 0.025 * 2**n:
        k += 1
    if k == 0:
        return Estimate(statistics.median(ordered), None, None, n)
    return Estimate(statistics.median(ordered), ordered[k - 1], ordered[n - k], n)


def _t(degrees_of_freedom: int) -> float:
    return _T[degrees_of_freedom - 1] if degrees_of_freedom <= len(_T) else 1.96 + 2.4 / degrees_of_freedom
