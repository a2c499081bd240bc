"""Layers that LiteRT has no operation for, as several that it has: integer files, equal in float."""

import numpy as np
import pytest
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.deploy._interpreter import interpreter, run
from tfkd.quantization.lowering import lower

layers = keras.layers
FEATURES = np.random.default_rng(0).normal(size=(32, 6, 8)).astype(np.float32)


def _twice(kind):
  return lambda x: kind()([x, x])


def _three(kind):
  return lambda x: kind()([x, layers.Dense(8)(x), layers.Dense(8)(x)])


KINDS = {
  "Add twice": _twice(layers.Add),
  "Add of three": _three(layers.Add),
  "Average": _three(layers.Average),
  "operator": lambda x: x + x,
  "PReLU": layers.PReLU(shared_axes=[1]),
  "TimeDistributed": layers.TimeDistributed(layers.Dense(4, activation="gelu")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_integer_and_equal_in_float(kind, tmp_path):
  inputs = keras.Input(FEATURES.shape[1:])
  outputs = layers.Dense(3)(layers.Flatten()(KINDS[kind](layers.Dense(8)(inputs))))
  model = keras.Model(inputs, outputs)
  rng = np.random.default_rng(0)
  model.set_weights([weight + 0.2 * rng.normal(size=weight.shape) for weight in model.get_weights()])
  expected = model(FEATURES).numpy()
  np.testing.assert_allclose(lower(model, ())(FEATURES), expected, atol=1e-5 * np.ptp(expected))
  quantized = quantization.quantize(model, "w8a8", calibration_data=FEATURES)
  deploy.to_tflite(quantized, tmp_path / "model.tflite")  # Refuses a file with float tensors.
  file, emulated = interpreter(tmp_path / "model.tflite"), quantized(FEATURES).numpy()
  step = file.get_output_details()[0]["quantization"][0]
  assert np.abs(run(file, FEATURES) - emulated).max() <= 2.01 * step
  quantization.save(quantized, tmp_path / "model.keras")
  np.testing.assert_array_equal(quantization.load(tmp_path / "model.keras")(FEATURES), emulated)


def test_slopes_of_positions_are_refused():
  inputs = keras.Input((6, 8))
  model = keras.Model(inputs, layers.Dense(3)(layers.PReLU(name="slopes")(layers.Dense(8)(inputs))))
  with pytest.raises(ValueError, match=r"'slopes' \(PReLU\).*shared_axes"):
    quantization.quantize(model, "w8a8")
