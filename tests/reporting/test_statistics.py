"""Statistics of results over seeds."""

import numpy as np
import pytest

from tfkd.reporting import compare, difference_of_means, format_mean_std


def test_difference_of_means():
  difference, std = difference_of_means([0.7, 0.8], [0.6, 0.65])
  assert difference == pytest.approx(0.125) and std == pytest.approx(np.hypot(0.1, 0.05) / np.sqrt(2))
  assert difference_of_means([0.7], [0.6])[1] is None


@pytest.mark.parametrize(
  "one, other, words",
  [
    ([0.7, 0.72], [0.6, 0.62], "One ends 10.00 points above the other, 5.0 times"),
    ([0.6, 0.62], [0.7, 0.72], "One ends 10.00 points below the other, 5.0 times"),
    ([0.7, 0.8], [0.7, 0.79], "One ends 0.50 points above the other, no more than"),
    ([0.7, 0.7], [0.7, 0.7], "no finding"),
    ([0.8, 0.8], [0.7, 0.7], "One ends 10.00 points above the other, beyond"),
    ([0.8], [0.7], "one seed alone"),
  ],
)
def test_compare_reports_a_difference_with_its_standard_deviation(one, other, words):
  assert words in compare("one", one, "the other", other)


def test_format_mean_std_uses_the_sample_standard_deviation():
  values = [0.5, 0.6, 0.8]
  assert format_mean_std(values, 100) == f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"
  assert format_mean_std([0.5], 100, 1) == "50.0"
  assert format_mean_std([]) == "–"
