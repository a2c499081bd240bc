"""What is frozen stays as it is, to the last bit, quantized or not."""

import numpy as np
import pytest
import tf_keras as keras

from tfkd import Distiller, quantization
from tfkd.objectives import simkd_student

layers = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.random((32, 8, 8, 3), np.float32), RNG.integers(0, 3, 32)
SCHEMES = ("w8a8", "w4a8", "w2a1")


def _model():
  stack = [keras.Input((8, 8, 3))]
  for i in range(2):
    stack += [
      layers.Conv2D(4, 3, name=f"conv{i}"),
      layers.BatchNormalization(name=f"bn{i}"),
      layers.ReLU(name=f"relu{i}"),
    ]
  stack += [
    layers.Conv2D(4, 1, activation="relu", name="conv2"),
    layers.Flatten(name="flat"),
    layers.Dense(3, name="head"),
  ]
  return keras.Sequential(stack)


def _fit(student, **options):
  distiller = Distiller(None, student, **options)
  distiller.compile(keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  distiller.fit(X, Y, epochs=2, verbose=0)


def _state(layer):
  return {v.name: v.numpy() for v in layer.variables if "optimizer_step" not in v.name}


@pytest.mark.parametrize("when", ["before", "after", "both"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_frozen_layers_stay_and_the_others_learn(scheme, when):
  frozen = ("conv0", "bn0", "relu0", "conv2")
  model = _model()
  if when != "after":
    for name in frozen:
      model.get_layer(name).trainable = False
  student = quantization.quantize(model, scheme, calibration_data=X)
  parts = {layer.name.removeprefix("quant_"): layer for layer in student.layers}
  if when != "before":
    for name in frozen:
      parts[name].trainable = False
  assert not any(v is w for name in frozen for v in parts[name].variables for w in student.trainable_variables)
  before = {name: _state(layer) for name, layer in parts.items()}
  _fit(student)
  for name in frozen:
    for variable, value in _state(parts[name]).items():
      np.testing.assert_array_equal(value, before[name][variable], err_msg=variable)
  for name in ("conv1", "bn1", "head"):
    assert any((value != before[name][variable]).any() for variable, value in _state(parts[name]).items())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_whole_student_is_frozen_thawed_and_saved_so(scheme, tmp_path):
  student = quantization.quantize(_model(), scheme, calibration_data=X)
  student.trainable = False
  assert not student.trainable_variables
  expected = student.predict(X, verbose=0)
  for suffix in (".keras", ".h5"):
    path = str(tmp_path / f"student{suffix}")
    quantization.save(student, path)
    loaded = quantization.load(path)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    assert not loaded.trainable_variables
  student.trainable = True
  assert len(student.trainable_variables) == len(_model().trainable_variables)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ranges_of_layers_that_are_frozen_after_a_training_stay_too(scheme):
  student = quantization.quantize(_model(), scheme, calibration_data=X)
  _fit(student)
  student.trainable = False
  before = {v.name: v.numpy() for v in student.variables if "optimizer_step" not in v.name}
  student(3 * X - 1, training=True)
  for name, value in before.items():
    np.testing.assert_array_equal(next(v for v in student.variables if v.name == name), value, err_msg=name)


def test_a_student_that_is_frozen_and_not_calibrated_has_the_ranges_of_its_kernels():
  model = _model()
  model.trainable = False
  student = quantization.quantize(model, "w8a8")
  kernel = model.get_layer("head").kernel.numpy()
  highs = [float(v) for v in student.get_layer("quant_head").variables if v.name.endswith("kernel_max:0")]
  assert highs == [pytest.approx(np.abs(kernel).max())]


def test_the_kernel_of_a_layer_that_was_split_stays_frozen():
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
def test_the_teachers_classifier_in_a_quantized_simkd_student_stays(scheme):
  teacher = _model()
  joined = simkd_student(teacher, _model(), "relu1", "relu1")
  student = quantization.quantize(joined, scheme, calibration_data=X)
  names = [layer.name for layer in student.layers if layer.name.removeprefix("quant_").startswith("teacher_")]
  before = [student.get_layer(name).get_weights() for name in names]
  assert sum(map(len, before)) > 0
  _fit(student)
  for name, weights in zip(names, before, strict=True):
    for a, b in zip(student.get_layer(name).get_weights(), weights, strict=True):
      np.testing.assert_array_equal(a, b)
