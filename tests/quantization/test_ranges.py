"""Ranges and grids of a new quantized student, read from its outputs and variables."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import quantization

layers = keras.layers


def _input_range(student):
  """The range that the student's input is quantized in."""
  (layer,) = (layer for layer in student.layers if "QuantizeLayer" in type(layer).__name__)
  found = {w.name.split("/")[-1].rsplit("_", 1)[-1]: float(w) for w in layer.weights if "_m" in w.name}
  return found["min:0"], found["max:0"]


def _linear():
  return keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones", name="dense")])


def test_a_calibrated_range_is_the_mean_of_all_batches():
  batches = [(-1.0, 2.0), (-5.0, 8.0), (-3.0, 2.0), (1.0, 4.0)]  # The last range is [0, 4]: ranges contain 0.
  dataset = tf.data.Dataset.from_tensor_slices(np.array(batches, np.float32)[..., None])
  student = quantization.quantize(_linear(), "w8a8", calibration_data=dataset)
  np.testing.assert_allclose(_input_range(student), [-9 / 4, 16 / 4], rtol=1e-6)
  # Only the first num_batches batches are read, and a second calibration replaces the earlier ranges.
  quantization.calibrate(student, dataset, num_batches=2)
  np.testing.assert_allclose(_input_range(student), [-6 / 2, 10 / 2], rtol=1e-6)


def test_a_sorted_array_is_sampled_from_its_first_example_to_its_last():
  values = np.linspace(-1, 9, 30_000, dtype=np.float32)[:, None]
  student = quantization.quantize(_linear(), "w8a8", calibration_data=values)
  # The mean minimum and maximum of twenty batches that are spread evenly over [-1, 9].
  edges = np.linspace(-1, 9, 21)
  expected = np.minimum(edges[:-1], 0).mean(), np.maximum(edges[1:], 0).mean()
  np.testing.assert_allclose(_input_range(student), expected, rtol=0.02)


@pytest.mark.parametrize(
  "make, least",
  [
    (lambda: layers.ReLU(), 0.0),
    (lambda: layers.ReLU(max_value=6.0), 0.0),
    (lambda: layers.ReLU(negative_slope=0.5), -2.0),
  ],
  ids=["relu", "relu6", "leaky"],
)
def test_the_negative_half_of_an_activation_is_in_its_range(make, least):
  values = np.linspace(-4, 4, 256, dtype=np.float32).reshape(16, 4, 4, 1)
  activation = make()
  expected = np.asarray(activation(values))
  assert expected.min() == pytest.approx(least, abs=8 / 255)
  inputs = keras.Input((4, 4, 1))
  x = layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="conv")(inputs)
  model = keras.Model(inputs, activation(x))
  student = quantization.quantize(model, "w8a8", calibration_data=values)
  step = (np.ptp([0, *expected.ravel()]) + 8) / 255  # Of the grids of output and input.
  continuous = np.abs(values - activation.threshold) > 0.1
  np.testing.assert_allclose(student(values).numpy()[continuous], expected[continuous], atol=step)
  # Training moves each end by a thousandth of its distance to the batch's, from any value.
  (low,) = (w for w in student.get_layer(f"quant_{activation.name}").weights if w.name.endswith("_min:0"))
  low.assign(-6.0)
  for _ in range(10):
    student(values, training=True)
  assert float(low) == pytest.approx(-6 + (expected.min() + 6) * (1 - 0.999**10), abs=3e-4)


def test_low_bit_kernels_have_a_grid_of_twice_their_mean_by_default():
  kernel = np.array([0.05, -0.1, 0.2, -0.4, 0.3, -0.02], np.float32)
  model = keras.Sequential([keras.Input((1,)), layers.Dense(6, "relu", use_bias=False, name="dense")])
  model.get_layer("dense").set_weights([kernel[None]])
  for scheme, scale in (("w2a7", 2.0), (quantization.FixedGrid(2, 7, weight_scale=3.0), 3.0)):
    student = quantization.quantize(model, scheme)
    # Both signs, since a ReLU shows one of them.
    found = np.subtract(*student(np.array([[1.0], [-1.0]])).numpy())
    squashed = np.tanh(np.float64(kernel))
    width = scale * np.abs(squashed).mean()
    expected = (np.round((np.clip(squashed / width, -0.5, 0.5) + 0.5) * 3) / 3 - 0.5) * width
    np.testing.assert_allclose(found, expected, atol=0.5 / 127 + 1e-6)
