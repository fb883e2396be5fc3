"""Differences between groups of figures, against SciPy's t-tests."""

import numpy as np
import pytest
from scipy import stats

from jaxgen.errors import InputError
from jaxgen.metrics.paired import paired_difference, unpaired_difference

FIRST = np.random.default_rng(0).normal(1.0, 0.3, 10)
SECOND = FIRST + np.random.default_rng(1).normal(0.2, 0.05, 10)


def test_paired_difference_is_that_of_the_paired_t_test():
    found = paired_difference(FIRST, SECOND)
    reference = stats.ttest_rel(FIRST, SECOND).confidence_interval(0.95)
    np.testing.assert_allclose(found, [np.mean(FIRST - SECOND), reference.low, reference.high], rtol=1e-12)
    assert found.is_clear


def test_unpaired_difference_is_that_of_welchs_t_test():
    found = unpaired_difference(FIRST, SECOND[:6])
    reference = stats.ttest_ind(FIRST, SECOND[:6], equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(found, [FIRST.mean() - SECOND[:6].mean(), reference.low, reference.high], rtol=1e-12)
    assert not unpaired_difference(FIRST, FIRST[::-1] + 0.01).is_clear


def test_equal_figures_have_an_interval_of_no_length():
    assert unpaired_difference([2.0, 2.0], [1.0, 1.0]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("compare", "first", "second"), [
    (paired_difference, [1.0], [2.0]),
    (paired_difference, [1.0, 2.0], [2.0, 3.0, 4.0]),
    (unpaired_difference, [1.0, 2.0], [1.0]),
])  # fmt: skip
def test_too_few_figures_are_refused(compare, first, second):
    with pytest.raises(InputError, match="a comparison"):
        compare(first, second)
