"""The message of a value that is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd.distiller.numerics import assert_all_finite, message_of


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("value, kind", [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_names_the_tensor_the_kind_and_the_first_index(dtype, value, kind):
  array = np.zeros((4, 3), np.float32)
  array[1, 2], array[3, 0] = value, np.nan
  tensor = tf.cast(array, dtype)

  def check(tensor):
    return assert_all_finite({"a": tf.zeros(2), "b": tensor, "c": tf.constant(1)}, "teacher outputs")

  for run in (check, tf.function(check)):
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
      run(tensor)
    assert message_of(raised.value) == f"teacher outputs contain {kind} at index [1, 2]"
  assert len(check(tf.zeros_like(tensor))) == 2


def test_other_errors_have_no_message():
  with pytest.raises(tf.errors.InvalidArgumentError) as raised:
    tf.debugging.assert_less(2, 1, "the labels contain nan")
  assert message_of(raised.value) is None
