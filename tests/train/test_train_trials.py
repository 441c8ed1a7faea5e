"""The statistics of timings, on cases that can be done by hand."""

import math

import pytest
from m1.trials import Estimate, median_interval, paired_ratio


def test_a_ratio_is_the_geometric_mean_of_the_pairs() -> None:
    found = paired_ratio([2.0, 8.0], [1.0, 1.0])
    assert found.value == pytest.approx(4.0)
    # The logarithms are 1 and 3 times log 2: mean 2, standard error 1, t(1) = 12.706.
    assert found.low == pytest.approx(4 / 2**12.706)
    assert found.high == pytest.approx(4 * 2**12.706)
    assert found.n == 2


def test_what_slows_both_of_a_pair_down_does_not_matter() -> None:
    found = paired_ratio([1.0, 3.0, 70.0], [2.0, 6.0, 140.0])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_one_pair_has_no_interval() -> None:
    assert paired_ratio([3.0], [2.0]) == Estimate(1.5, None, None, 1)


def test_the_interval_of_many_pairs_is_that_of_the_normal_distribution() -> None:
    a = [math.e, 1 / math.e] * 5000
    found = paired_ratio(a, [1.0] * 10_000)
    assert found.high is not None
    assert math.log(found.high) == pytest.approx(1.96 / 100, rel=1e-3)


def test_the_interval_of_a_median_comes_from_the_binomial_distribution() -> None:
    # n = 10: P(Binomial <= 1) = 11/1024 = 1.07 %, P(Binomial <= 2) = 5.5 %: the second and the ninth value.
    assert median_interval([10, 1, 9, 2, 8, 3, 7, 4, 6, 5]) == Estimate(5.5, 2, 9, 10)
    assert median_interval([5, 1, 4, 2, 3, 6]) == Estimate(3.5, 1, 6, 6)


def test_five_values_bound_no_median() -> None:
    assert median_interval([1, 2, 3, 4, 5]) == Estimate(3, None, None, 5)
