"""Frozen layers of a student stay bit-identical, quantized or not."""

import types

import numpy as np
import pytest
import tf_keras as keras

from tfkd import Distiller, quantization
from tfkd.objectives import simkd_student
from tfkd.quantization import _quantize

layers = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.random((32, 8, 8, 3), np.float32), RNG.integers(0, 3, 32)
SCHEMES = ("w8a8", "w4a8", "w2a1")
FROZEN_BEFORE = ("conv0", "bn0", "relu0", "conv4", "conv2", "bn2", "relu2")
FROZEN_AFTER = ("conv1", "bn1", "relu1", "conv5", "conv2", "bn2", "relu2")
FROZEN = {*FROZEN_BEFORE, *FROZEN_AFTER}


def _model():
  """Builds three frozen blocks, a block that learns, and convolutions with an activation argument."""
  half = keras.initializers.Constant(0.5)  # Keeps rounded features of untrained layers from being constant.
  stack = [keras.Input((8, 8, 3))]
  for i in range(4):
    stack += [
      layers.Conv2D(4, 3, padding="same", name=f"conv{i}"),
      layers.BatchNormalization(beta_initializer=half, name=f"bn{i}"),
      layers.ReLU(name=f"relu{i}"),
    ]
    if i < 2:
      stack += [layers.Conv2D(4, 1, activation="relu", bias_initializer=half, name=f"conv{i + 4}")]
  return keras.Sequential([*stack, layers.Flatten(name="flat"), layers.Dense(3, name="head")])


def _fit(student, run_eagerly=True):
  distiller = Distiller(None, student)
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  distiller.compile(keras.optimizers.Adam(0.1), loss, run_eagerly=run_eagerly)
  distiller.fit(X, Y, epochs=2, verbose=0)


def _state(layer):
  return {v.name: v.numpy() for v in layer.variables if "optimizer_step" not in v.name}


@pytest.fixture(scope="module", params=SCHEMES)
def fitted(request):
  """A student with layers that were frozen before and after quantization, and its state before and after a fit."""
  keras.utils.set_random_seed(0)
  model = _model()
  for name in FROZEN_BEFORE:
    model.get_layer(name).trainable = False
  student = quantization.quantize(model, request.param, calibration_data=X)
  parts = {layer.name.removeprefix("quant_"): layer for layer in student.layers}
  trainable = {
    "before": {id(v) for v in student.trainable_variables},
    "of frozen layers": {id(v) for name in FROZEN_BEFORE for v in parts[name].variables},
  }
  for name in FROZEN_AFTER:
    parts[name].trainable = False
  before = {name: _state(layer) for name, layer in parts.items()}
  listed = {id(v) for v in student.trainable_variables}
  _fit(student, run_eagerly=False)
  after = {name: _state(layer) for name, layer in parts.items()}
  return types.SimpleNamespace(
    student=student, parts=parts, before=before, after=after, listed=listed, trainable=trainable
  )


def test_frozen_layers_stay_and_the_others_learn(fitted):
  assert not fitted.trainable["before"] & fitted.trainable["of frozen layers"]
  assert not fitted.listed & {id(v) for name in FROZEN for v in fitted.parts[name].variables}
  for name in FROZEN:
    for variable, value in fitted.after[name].items():
      np.testing.assert_array_equal(value, fitted.before[name][variable], err_msg=variable)
  for name in ("conv3", "bn3", "head"):
    assert any((value != fitted.before[name][variable]).any() for variable, value in fitted.after[name].items())


def test_a_whole_student_is_frozen_with_its_ranges_saved_and_thawed(fitted, tmp_path):
  student = fitted.student
  student.trainable = False
  assert not student.trainable_variables
  before = {v.name: v.numpy() for v in student.variables if "optimizer_step" not in v.name}
  student(3 * X - 1, training=True)
  for name, value in before.items():
    np.testing.assert_array_equal(next(v for v in student.variables if v.name == name), value, err_msg=name)
  expected = student(X).numpy()
  for suffix in (".keras", ".h5"):
    path = str(tmp_path / f"student{suffix}")
    quantization.save(student, path)
    loaded = quantization.load(path)
    np.testing.assert_array_equal(loaded(X), expected)
    assert not loaded.trainable_variables
  student.trainable = True
  assert len(student.trainable_variables) == len(_model().trainable_variables)


def test_a_frozen_student_without_calibration_has_the_ranges_of_its_kernels():
  model = _model()
  model.trainable = False
  student = quantization.quantize(model, "w8a8")
  kernel = model.get_layer("head").kernel.numpy()
  highs = [float(v) for v in student.get_layer("quant_head").variables if v.name.endswith("kernel_max:0")]
  assert highs == [pytest.approx(np.abs(kernel).max())]


def test_the_kernel_of_a_layer_that_was_split_stays_frozen(monkeypatch):
  monkeypatch.setattr(_quantize, "check_export", lambda *args, **kwargs: None)  # Tested in test_placement.
  inputs = keras.Input((8, 8, 3))
  x = layers.SeparableConv2D(4, 3, activation="swish", name="separable", trainable=False)(inputs)
  model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
  student = quantization.quantize(model, "w8a8", calibration_data=X)
  parts = [layer for layer in student.layers if "separable" in layer.name]
  before = [layer.get_weights() for layer in parts]
  _fit(student)
  assert sum(len(layer._weight_vars) for layer in parts) == 2
  for layer, weights in zip(parts, before, strict=True):
    for a, b in zip(layer.get_weights(), weights, strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scheme", ["w8a8", "w2a1"])
def test_the_teachers_classifier_in_a_quantized_simkd_student_stays_frozen(scheme):
  def small():
    stack = [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn")]
    return keras.Sequential([*stack, layers.ReLU(name="relu"), layers.Flatten(), layers.Dense(3, name="head")])

  student = quantization.quantize(simkd_student(small(), small(), "relu", "relu"), scheme, calibration_data=X)
  names = [layer.name for layer in student.layers if layer.name.removeprefix("quant_").startswith("teacher_")]
  before = [student.get_layer(name).get_weights() for name in names]
  assert sum(map(len, before)) > 0
  _fit(student)
  for name, weights in zip(names, before, strict=True):
    for a, b in zip(student.get_layer(name).get_weights(), weights, strict=True):
      np.testing.assert_array_equal(a, b)
