"""Tables and intervals against published values and the scalar estimator."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rl.algo.passk import pass_at_k, pass_at_k_table, rate_interval


def test_the_table_holds_the_estimator():
    table = pass_at_k_table(9, 4)
    for n in range(10):
        for correct in range(10):
            if correct <= n and n >= 4:
                assert table[n, correct] == pass_at_k(n, correct, 4)
            else:
                assert np.isnan(table[n, correct])


def test_wilson_by_hand():
    # z = 1.959964, z^2 = 3.841459; 2 of 8: middle (0.25 + 0.240091) / 1.480182 = 0.331101,
    # half 1.959964 / 1.480182 * sqrt(0.25 * 0.75 / 8 + 3.841459 / 256) = 0.259622
    low, high = rate_interval(np.array([8]), np.array([2]), 0.95, "wilson")
    assert (low[0], high[0]) == (pytest.approx(0.071479, abs=2e-5), pytest.approx(0.590723, abs=2e-5))


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson"])
@pytest.mark.parametrize("n", [1, 8, 30])
def test_equals_scipy(method, n):
    name = {"wilson": "wilson", "clopper-pearson": "exact"}[method]
    for correct in range(n + 1):
        theirs = stats.binomtest(correct, n).proportion_ci(0.9, method=name)
        low, high = rate_interval(np.array([n]), np.array([correct]), 0.9, method)
        assert (low[0], high[0]) == (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9))


def test_nothing_is_known_without_attempts():
    assert [float(end[0]) for end in rate_interval(np.array([0]), np.array([0]), 0.95, "wilson")] == [0.0, 1.0]
