"""The way back, `to_keras3`: converted models, and those of `tfkd.models`."""

import keras as keras3
import numpy as np
import pytest
import tf_keras as keras

import tfkd
from tests.keras3.comparison import TOLERANCE, difference
from tests.keras3.test_layers import CASES, model_of
from tests.keras3.test_operations import OPERATIONS
from tfkd import from_keras3, to_keras3


@pytest.mark.parametrize("make, shapes, is_indices", CASES)
def test_a_layer_comes_back(make, shapes, is_indices):
  model, data = model_of(make, shapes, is_indices)
  again = to_keras3(from_keras3(model))
  assert difference(model(data, training=False), again(data, training=False)) < TOLERANCE
  if type(make()).__name__ != "Activation":  # relu6 comes back as ReLU.
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_an_operation_comes_back(operation):
  x, y = keras3.Input((6, 5, 4)), keras3.Input((6, 5, 4))
  model = keras3.Model([x, y], operation(x, y))
  data = list(np.random.default_rng(0).normal(size=(2, 3, 6, 5, 4)).astype(np.float32))
  again = to_keras3(from_keras3(model))
  assert difference(model(data), again(data)) < TOLERANCE


@pytest.mark.parametrize(
  "name, size",
  [
    ("resnet18x0.25", 32),
    ("resnet50x0.25", 32),
    ("resnet8", 32),
    ("wrn-10-1", 32),
    ("vit_tiny16", 32),
    ("svhn_cnnx0.5", 32),
    ("depthwise_cnn", 32),
    ("plain_cnn", 32),
  ],
)
def test_the_models_of_the_library_go_to_keras_3(name, size, tmp_path):
  model = tfkd.models.build(name, 10, (size, size, 3))
  rng = np.random.default_rng(0)
  for weight in model.weights:
    value = weight.numpy()
    if value.ndim:
      weight.assign(
        rng.uniform(0.5, 1.5, value.shape) if "variance" in weight.name else value + rng.normal(0, 0.02, value.shape)
      )
  images = rng.normal(size=(2, size, size, 3)).astype(np.float32)
  made = to_keras3(model)
  assert isinstance(made, keras3.Model) and not isinstance(made, keras.Model)
  assert difference(model(images).numpy(), np.asarray(made(images))) < TOLERANCE
  made.save(tmp_path / "model.keras")
  loaded = keras3.saving.load_model(tmp_path / "model.keras")
  assert difference(np.asarray(made(images)), np.asarray(loaded(images))) < TOLERANCE
