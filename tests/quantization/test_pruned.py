"""Pruned students keep their zeros through quantization-aware training, saving and export; `sizes` counts them."""

import gzip
import logging

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.deploy._zeros import count_zeros
from tfkd.quantization.pruned import KeepZeros

layers = keras.layers
pytestmark = pytest.mark.usefixtures("no_trial_conversion")
RNG = np.random.default_rng(0)
X, Y = RNG.random((16, 8, 8, 3), np.float32), RNG.integers(0, 3, 16)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _pruned(model, share=0.5):
  """Sets entries of all kernels to 0."""
  rng = np.random.default_rng(1)
  for layer in model.layers:
    weights = [np.where(rng.random(w.shape) < share, 0, w) if w.ndim > 1 else w for w in layer.get_weights()]
    layer.set_weights(weights)
  return model


def _images(transposed=True):
  inputs = keras.Input((8, 8, 3))
  x = layers.Conv2D(4, 3, name="conv", use_bias=False)(inputs)
  x = layers.ReLU()(layers.BatchNormalization()(x))
  x = layers.DepthwiseConv2D(3, name="depthwise", activation="relu")(x)
  x = layers.SeparableConv2D(6, 3, padding="same", name="separable")(x)
  if transposed:
    x = layers.Conv2DTranspose(4, 2, name="transposed")(x)
  return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))


def _zeros(model):
  """Positions of the zeros of all kernels, by name: of rounded layers and of float layers."""
  found = {}
  for layer in model.layers:
    kernels = [kernel for kernel, _, _ in getattr(layer, "_weight_vars", ())]
    for kernel in kernels or [w for w in layer.weights if w.shape.rank > 1]:
      found[kernel.name] = kernel.numpy() == 0
  return found


def _fit(model, optimizer="sgd", x=X, y=Y, **options):
  model.compile(optimizer, LOSS, **options)
  model.fit(x, y, epochs=2, batch_size=8, verbose=0)


def _assert_equal(found, expected):
  assert list(found) == list(expected) and len(found) > 1
  for name, zeros in expected.items():
    np.testing.assert_array_equal(found[name], zeros, err_msg=name)


@pytest.fixture(scope="module", params=["w8a8", "w5a8", "w4a8"])
def fitted(request):
  """A student, its zeros and kernels before a fit with everything that moves weights, and the log of `quantize`."""
  keras.utils.set_random_seed(0)
  model, records = _pruned(_images(transposed=request.param != "w4a8")), []
  handler = logging.Handler()
  handler.emit = lambda record: records.append(record.getMessage())
  logging.getLogger("absl").addHandler(handler)
  student = quantization.quantize(model, request.param, calibration_data=X)
  logging.getLogger("absl").removeHandler(handler)
  zeros = _zeros(student)
  kernels = {
    kernel.name: kernel.numpy() for layer in student.layers for kernel, _, _ in getattr(layer, "_weight_vars", ())
  }
  optimizer = keras.optimizers.AdamW(0.05, weight_decay=0.1, use_ema=True, global_clipnorm=1.0)
  _fit(student, optimizer)
  return model, student, zeros, kernels, records, request.param


def test_the_same_entries_are_zero_after_training(fitted):
  model, student, zeros, _, _, _ = fitted
  given = [w == 0 for layer in model.layers for w in layer.get_weights() if w.ndim > 1]
  for found, expected in zip(zeros.values(), given, strict=True):
    np.testing.assert_array_equal(found, expected.reshape(found.shape))
  _assert_equal(_zeros(student), zeros)
  for kernel, _, _ in (v for layer in student.layers for v in getattr(layer, "_weight_vars", ())):
    assert not np.signbit(kernel.numpy()[kernel.numpy() == 0]).any()  # -0.0 has other bits, which compress worse.


def test_the_other_entries_learn(fitted):
  _, student, zeros, before, _, _ = fitted
  for layer in student.layers:
    for kernel, _, _ in getattr(layer, "_weight_vars", ()):
      assert np.mean(kernel.numpy()[~zeros[kernel.name]] != before[kernel.name][~zeros[kernel.name]]) > 0.8


def test_one_line_names_layers_and_sparsity(fitted):
  (line,) = [message for message in fitted[4] if "zeros" in message]
  shares = {name.partition("/")[0]: zeros.mean() for name, zeros in fitted[2].items()}
  assert all(f"{name} ({share:.0%})" in line for name, share in shares.items()) and "keep_zeros=False" in line


def test_a_file_has_the_zeros(fitted, tmp_path):
  _, student, zeros, _, _, scheme = fitted
  deploy.to_tflite(student, tmp_path / "student.tflite")
  content = (tmp_path / "student.tflite").read_bytes()
  found, weights = count_zeros(content)
  rounded = [
    np.asarray(quantizer(kernel, False, weights=ranges))
    for layer in student.layers
    for kernel, quantizer, ranges in getattr(layer, "_weight_vars", ())
  ]
  assert weights == sum(values.size for values in rounded)
  assert found == sum(np.sum(values == 0) for values in rounded) >= sum(map(np.sum, zeros.values()))
  dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
  logits = student.predict(X, verbose=0)
  np.testing.assert_allclose(deploy.logits(tmp_path / "student.tflite", dataset)[0], logits, atol=0.1 * np.ptp(logits))


@pytest.mark.parametrize("name", ["student.keras", "student.h5", "student"])
def test_loaded_students_keep_them(fitted, name, tmp_path):
  _, student, zeros, _, _, scheme = fitted
  if scheme != "w4a8":
    pytest.skip("one scheme is enough")
  quantization.save(student, tmp_path / name)
  loaded = quantization.load(tmp_path / name)
  np.testing.assert_array_equal(loaded.predict(X, verbose=0), student.predict(X, verbose=0))
  quantization.calibrate(loaded, X)
  _fit(loaded, keras.optimizers.SGD(0.1, momentum=0.9))
  _assert_equal(_zeros(loaded), zeros)


def test_training_fills_them_without_the_option():
  model = _pruned(_images())
  student = quantization.quantize(model, "w8a8", calibration_data=X, keep_zeros=False)
  before = _zeros(student)
  _fit(student)
  assert all(np.sum(found) < 0.4 * np.sum(before[name]) for name, found in _zeros(student).items())


def test_embeddings_and_float_layers_keep_them():
  x, inputs = RNG.integers(0, 20, (16, 8)), keras.Input((8,), dtype="int32")
  features = layers.Embedding(20, 6, name="embedding")(inputs)
  features = layers.LSTM(4, name="lstm", return_sequences=True)(features)
  model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(features)))
  student = quantization.quantize(_pruned(model, 0.4), "w8a8", calibration_data=x, float_layers=["lstm"])
  before = _zeros(student)
  assert len(before) == 4 and all(0.1 < np.mean(zeros) < 0.9 for zeros in before.values())
  _fit(student, "adam", x)
  _assert_equal(_zeros(student), before)


def test_convolutions_of_sequences_keep_them():
  inputs = keras.Input((8, 3))
  features = layers.Conv1D(4, 3, padding="causal", name="conv")(inputs)
  features = layers.SeparableConv1D(4, 3, name="separable")(features)
  features = layers.DepthwiseConv1D(2, name="depthwise")(features)
  features = layers.Conv1DTranspose(4, 2, name="transposed")(features)
  model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(features)))
  student = quantization.quantize(_pruned(model, 0.4), "w8a8", calibration_data=X[:, 0])
  before = _zeros(student)
  assert len(before) == 6 and all(0.1 < np.mean(zeros) < 0.9 for zeros in before.values())
  _fit(student, "adam", X[:, 0])
  _assert_equal(_zeros(student), before)


@pytest.mark.parametrize("legacy", [False, True])
def test_replicas_keep_them(two_replicas, legacy):
  with two_replicas.scope():
    student = quantization.quantize(_pruned(_images()), "w8a8", calibration_data=X)
    before = _zeros(student)
    module = keras.optimizers.legacy if legacy else keras.optimizers
    _fit(student, module.SGD(0.1, momentum=0.9))
  for layer in student.layers:
    for kernel, _, _ in getattr(layer, "_weight_vars", ()):
      for copy in kernel.values:
        np.testing.assert_array_equal(copy.numpy() == 0, before[kernel.name])


def test_frozen_layers_keep_them_when_they_are_unfrozen():
  model = _pruned(_images())
  model.get_layer("conv").trainable = False
  student = quantization.quantize(model, "w8a8", calibration_data=X)
  before, conv = _zeros(student), student.get_layer("quant_conv")
  weights = conv._weight_vars[0][0].numpy()
  _fit(student)
  np.testing.assert_array_equal(conv._weight_vars[0][0].numpy(), weights)
  conv.trainable = True
  _fit(student)
  assert np.any(conv._weight_vars[0][0].numpy() != weights)
  _assert_equal(_zeros(student), before)


def test_one_step_is_that_of_the_masked_kernel():
  """w -= lr (g + l2 w) for the entries that are not 0: g of the mean squared error, straight through the rounding."""
  x, y = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 3))
  kernel = np.where(RNG.random((5, 3)) < 0.4, 0, RNG.normal(size=(5, 3)))
  kernel[0, 0], kernel[1, 1] = 0, 0
  dense = layers.Dense(3, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.1))
  model = keras.Sequential([keras.Input((5,)), dense])
  model.set_weights([kernel])
  student = quantization.quantize(model, "w8a8", calibration_data=2 * x)
  (layer,) = [layer for layer in student.layers if getattr(layer, "_weight_vars", ())]
  ((variable, quantizer, ranges),) = layer._weight_vars
  kernel = variable.numpy().astype(np.float64)
  rounded = np.asarray(quantizer(variable, False, weights=ranges), np.float64)
  seen = student.layers[1](x.astype(np.float32)).numpy().astype(np.float64)  # The rounded inputs.
  outputs = student(x.astype(np.float32), training=False).numpy().astype(np.float64)
  np.testing.assert_allclose(outputs, seen @ rounded, atol=0.05)
  gradient = seen.T @ (2 * (outputs - y) / y.size) + 0.2 * kernel
  student.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
  student.train_on_batch(x, y)
  expected = np.where(kernel == 0, 0, kernel - 0.1 * gradient)
  np.testing.assert_allclose(variable.numpy(), expected, atol=1e-3)
  assert np.abs(expected - kernel).max() > 0.01


def test_a_weight_that_becomes_zero_is_not_pruned():
  """The positions are those of `quantize`, also if a constraint of the kernel makes other weights 0."""
  model = keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False, kernel_constraint="non_neg")])
  model.set_weights([np.array([[0, 0.1], [1, 1]], np.float32)])
  student = quantization.quantize(model, "w8a8", calibration_data=np.ones((2, 2), np.float32))
  kernel = student.layers[-1]._weight_vars[0][0]
  student.compile(keras.optimizers.SGD(1.0), "mse")
  student.train_on_batch(np.ones((1, 2)), np.full((1, 2), -9.0))
  assert kernel.numpy()[0, 1] == 0
  student.train_on_batch(np.ones((1, 2)), np.full((1, 2), 9.0))
  assert kernel.numpy()[0, 1] > 0 and kernel.numpy()[0, 0] == 0 < kernel.numpy()[1, 0]


@pytest.mark.parametrize(("zeros", "kept"), [(9, False), (10, True), (100, False)])
def test_a_kernel_is_pruned_from_a_tenth_of_zeros(zeros, kept):
  kernel = RNG.uniform(0.1, 1, (10, 10)).astype(np.float32)
  kernel.flat[:zeros] = 0
  model = keras.Sequential([keras.Input((10,)), layers.Dense(10), layers.ReLU(), layers.Dense(2)])
  model.layers[0].set_weights([kernel, np.zeros(10)])
  student = quantization.quantize(model, "w8a8", calibration_data=RNG.random((4, 10), np.float32))
  assert isinstance(student.layers[2]._weight_vars[0][0].constraint, KeepZeros) == kept


def test_identity_kernels_are_not_pruned():
  model = keras.Sequential([keras.Input((4,)), layers.Dense(4, kernel_initializer="identity")])
  student = quantization.quantize(model, "w8a8", calibration_data=RNG.random((4, 4), np.float32))
  assert student.layers[-1]._weight_vars[0][0].constraint is None


def test_grids_without_zero_refuse_pruned_kernels():
  model = _pruned(
    keras.Sequential(
      [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )
  )
  with pytest.raises(ValueError, match=r"no level 0 for the zeros of conv2d.*keep_zeros=False"):
    quantization.quantize(model, "w2a1")
  quantization.quantize(model, "w2a1", keep_zeros=False)
  model.layers[0].set_weights([np.ones(w.shape) for w in model.layers[0].get_weights()])
  student = quantization.quantize(model, "w2a1")  # Its logits stay in float.
  before = student.layers[-1].kernel.numpy() == 0
  _fit(student)
  np.testing.assert_array_equal(student.layers[-1].kernel.numpy() == 0, before)
  assert 0.2 < before.mean() < 0.8


def test_wrappers_of_pruning_are_refused_until_they_are_stripped():
  wrapped = tfmot.sparsity.keras.prune_low_magnitude(_images())
  with pytest.raises(ValueError, match=r"pass tfmot.sparsity.keras.strip_pruning\(model\)"):
    quantization.quantize(wrapped, "w8a8")
  quantization.quantize(tfmot.sparsity.keras.strip_pruning(wrapped), "w8a8", calibration_data=X)


def test_sizes_count_zeros_before_rounding_and_bytes_after_it():
  kernel = np.zeros((40, 10), np.float32)
  kernel[:10] = 1.0
  kernel[10] = 1e-6  # Rounded to 0.
  model = keras.Sequential([keras.Input((40,)), layers.Dense(10)])
  model.set_weights([kernel, np.ones(10)])
  found = quantization.sizes(model)
  assert (found["parameters"], found["nonzero_parameters"]) == (410, 120)
  assert found["sparse_bytes"] == 400 / 8 + 4 * 110 + 4 * 10
  student = quantization.quantize(model, "w4a8", calibration_data=RNG.random((4, 40), np.float32))
  found = quantization.sizes(student)
  assert (found["parameters"], found["nonzero_parameters"]) == (410, 120)
  assert found["packed_bytes"] == 400 / 2 + 4 + 4 * 10
  assert found["sparse_bytes"] == 400 / 8 + 100 / 2 + 4 + 4 * 10
  wrapped = tfmot.sparsity.keras.prune_low_magnitude(model)
  assert quantization.sizes(wrapped)["parameters"] == 410


def test_zeros_make_a_compressed_file_smaller(tmp_path):
  def compressed(share):
    keras.utils.set_random_seed(0)
    model = _pruned(keras.Sequential([keras.Input((200,)), layers.Dense(200)]), share)
    deploy.to_tflite(model, tmp_path / "float.tflite")
    zeros = np.sum(model.get_weights()[0] == 0)
    assert count_zeros((tmp_path / "float.tflite").read_bytes()) == (zeros, 40_000)
    deploy.to_tflite(quantization.quantize(model, "w8a8", calibration_data=RNG.random((4, 200))), tmp_path / "a.tflite")
    content = (tmp_path / "a.tflite").read_bytes()
    return len(content), len(gzip.compress(content, 9))

  (dense, dense_compressed), (sparse, sparse_compressed) = compressed(0.0), compressed(0.8)
  assert abs(sparse - dense) < 100 and sparse_compressed < 0.5 * dense_compressed
