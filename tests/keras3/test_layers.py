"""Each class of `keras.layers` is converted, with the same outputs, or refused."""

import inspect

import keras as keras3
import numpy as np
import pytest
import tf_keras as keras

from tests.keras3 import cases
from tests.keras3.comparison import TOLERANCE, difference, randomize
from tfkd.keras3 import from_keras3, table

CASES = [
  pytest.param(make, shapes, name in cases.INDICES, id=f"{name}-{index}")
  for name, layers in sorted(cases.LAYERS.items())
  for index, (make, shapes) in enumerate(layers)
]


def model_of(make, shapes, is_indices):
  shapes = shapes if isinstance(shapes, list) else [shapes]
  dtype = "int32" if is_indices else "float32"
  inputs = [keras3.Input(shape, dtype=dtype) for shape in shapes]
  layer = make()
  is_call_of_several = type(layer).__name__ in ("MultiHeadAttention", "GroupedQueryAttention")
  outputs = layer(*inputs) if is_call_of_several else layer(inputs if len(inputs) > 1 else inputs[0])
  rng = np.random.default_rng(1)
  data = [rng.integers(0, 4, (3, *s)) if is_indices else rng.normal(size=(3, *s)).astype("float32") for s in shapes]
  return randomize(keras3.Model(inputs, outputs)), data


@pytest.mark.parametrize("make, shapes, is_indices", CASES)
def test_a_layer_of_random_weights_has_the_same_outputs(make, shapes, is_indices, tmp_path):
  model, data = model_of(make, shapes, is_indices)
  made = from_keras3(model)
  expected = model(data, training=False)
  assert difference(expected, made(data, training=False)) < TOLERANCE
  assert [layer.name for layer in made.layers] == [layer.name for layer in model.layers]
  made.save(tmp_path / "model.keras")
  loaded = keras.models.load_model(tmp_path / "model.keras")
  # JSON makes lists of tuples.
  assert difference(keras3.tree.flatten(expected), keras3.tree.flatten(loaded(data, training=False))) < TOLERANCE


def test_no_class_of_keras_layers_is_forgotten():
  classes = {value for _, value in inspect.getmembers(keras3.layers, inspect.isclass)}
  public = {table.public_name(cls, keras3.layers) for cls in classes}
  known = [set(cases.LAYERS), set(table.REFUSED), set(cases.CELLS), cases.STRINGS, cases.ABSTRACT]
  assert public - cases.ABSTRACT - {"InputLayer"} <= set().union(*known)
  assert sum(map(len, known)) == len(set().union(*known))
  assert {*table.SAME, *table.SPECIAL} == {*cases.LAYERS, *cases.CELLS, *cases.STRINGS}
  assert all(cases.LAYERS.values())
