"""Calibration data is read in every form that the model's `fit` takes."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import quantization
from tfkd.quantization import input_batches

layers = keras.layers
A, B = np.arange(60, dtype=np.float32).reshape(20, 3), np.arange(40, dtype=np.float32).reshape(20, 2)
Y = np.zeros(20)


def _two_inputs():
  a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
  return keras.Model([a, b], layers.Dense(2)(layers.Concatenate()([a, b])))


def _one_input():
  return keras.Sequential([keras.Input((3,)), layers.Dense(2)])


def _dataset(*elements):
  return tf.data.Dataset.from_tensor_slices(elements if len(elements) > 1 else elements[0]).batch(8)


class _Batches(keras.utils.Sequence):
  def __init__(self, element):
    self._element = element

  def __len__(self):
    return 3

  def __getitem__(self, index):
    return tf.nest.map_structure(lambda array: array[8 * index : 8 * index + 8], self._element)


TWO = {
  "a list of arrays": [A, B],
  "a tuple of arrays": (A, B),
  "a dict of arrays": {"b": B, "a": A},
  "arrays with labels": ([A, B], Y),
  "arrays with labels and weights": ((A, B), Y, Y),
  "a data set with labels": _dataset((A, B), Y),
  "a data set with weights": _dataset((A, B), Y, Y),
  "a data set of inputs": tf.data.Dataset.from_tensor_slices(((A, B),)).batch(8),
  "a data set of dicts": _dataset({"a": A, "b": B}),
  "a data set of dicts with labels": _dataset({"a": A, "b": B}, Y),
  "a generator": iter([((A[:8], B[:8]), Y[:8]), ((A[8:16], B[8:16]), Y[8:16]), ((A[16:], B[16:]), Y[16:])]),
  "a sequence": _Batches(((A, B), Y)),
}
ONE = {
  "an array": A,
  "a list of examples": list(A),
  "a list of one array": [A],
  "an array with labels": (A, Y),
  "a data set": _dataset(A),
  "a data set with labels": _dataset(A, Y),
  "inputs with teacher outputs": _dataset((A, B), Y),
  "float64": A.astype(np.float64),
  "integers": A.astype(int),
}


@pytest.mark.parametrize("form", TWO)
def test_two_inputs_are_read_from(form):
  batches = list(input_batches(_two_inputs(), TWO[form], 20))
  for i, expected in enumerate((A, B)):
    np.testing.assert_array_equal(np.concatenate([batch[i] for batch in batches]), expected)


@pytest.mark.parametrize("form", ONE)
def test_one_input_is_read_from(form):
  batches = list(input_batches(_one_input(), ONE[form], 20))
  assert all(len(batch) == 1 and batch[0].dtype == tf.float32 for batch in batches)
  np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), A)


def test_a_student_of_two_inputs_has_the_ranges_of_both():
  student = quantization.quantize(_two_inputs(), "w8a8", calibration_data={"a": A, "b": B})
  highs = [float(v) for v in student.variables if "quantize_layer" in v.name and v.name.endswith("_max:0")]
  assert sorted(highs) == [B.max(), A.max()]


def test_arrays_are_sampled_evenly_and_data_sets_from_their_beginning():
  (batch,) = next(input_batches(_one_input(), np.repeat(np.arange(1280.0)[:, None], 3, axis=1), 1))
  np.testing.assert_array_equal(batch[:, 0], np.arange(0, 1280, 10))
  assert sum(len(batch[0]) for batch in input_batches(_one_input(), _dataset(A), 2)) == 16


@pytest.mark.parametrize(
  "model, data, words",
  [
    (_one_input, tf.data.Dataset.from_tensor_slices(A), "batch the data set"),
    (_one_input, B, r"input 'input.*' has shape \(None, 3\); a batch of the data has \(20, 2\)"),
    (_two_inputs, A, "has 2 inputs, a, b; the data has 1"),
    (_two_inputs, {"a": A}, "has inputs a, b; the data has a"),
    (_two_inputs, _dataset(A, B), "has 2 inputs.*the data has 1"),
    (_two_inputs, [A, B[:5]], "different lengths: 20, 5"),
  ],
)
def test_data_that_does_not_fit_the_inputs_is_refused(model, data, words):
  with pytest.raises(ValueError, match=words):
    list(input_batches(model(), data, 2))
