"""Quantized students are calibrated, trained, saved exactly and counted; unsuitable models are refused."""

import functools
import itertools
import logging
import re
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd import Distiller, quantization
from tfkd.deploy import to_tflite
from tfkd.models import svhn_cnn
from tfkd.objectives import SoftTargets

pytestmark = pytest.mark.usefixtures("no_trial_conversion")
layers = keras.layers
SCHEMES = ("w8a8", "w4a8", "w2a1", "w1a2")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _small():
  """Builds a network with a ReLU layer after batch normalisation, one as an argument, and a dense layer."""
  inputs = keras.Input((32, 32, 3))
  x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv0")(inputs)
  x = layers.ReLU(name="relu0")(layers.BatchNormalization(name="bn0")(x))
  x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv1")(x)
  return keras.Model(inputs, layers.Dense(10, name="logits")(layers.Flatten(name="flat")(x)), name="small")


def _quantized(scheme, images, model=None, **kwargs):
  return quantization.quantize(model or _small(), scheme, calibration_data=images[0], **kwargs)


@pytest.fixture(scope="module")
def students(images_once, tmp_path_factory, no_trial_conversion):
  """Function from a scheme to a student that learned from labels and a teacher, was compiled, and fitted once more."""

  @functools.cache
  def make(scheme):
    keras.utils.set_random_seed(0)
    x, y = images_once
    student = _quantized(scheme, images_once)
    distiller = Distiller(
      lambda x: 20 * tf.reduce_mean(x, [1, 2, 3])[:, None] * tf.range(10.0) / 10, student, [SoftTargets(4.0)]
    )
    distiller.compile(keras.optimizers.Adam(5e-3), loss=LOSS)
    losses = distiller.fit(x, y, batch_size=16, epochs=8, verbose=0).history["loss"]
    checkpoint = tmp_path_factory.mktemp("checkpoint") / "best.keras"
    student.compile("adam", loss=LOSS, run_eagerly=True)  # Two steps cost less than their graph.
    student.fit(x, y, batch_size=32, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(str(checkpoint))])
    return types.SimpleNamespace(
      scheme=scheme, student=student, losses=losses, checkpoint=checkpoint, outputs=student(x).numpy()
    )

  return make


@pytest.fixture(params=SCHEMES)
def trained(request, students):
  return students(request.param)


def test_a_student_learns_from_labels_and_teacher(trained):
  assert trained.losses[-1] < trained.losses[0]


@pytest.mark.parametrize(
  "trained, suffix",
  # SavedModels are slow: one scheme of each kind.
  [*itertools.product(SCHEMES, (".keras", ".h5")), ("w8a8", ""), ("w2a1", "")],
  indirect=["trained"],
)
def test_a_saved_student_is_loaded_exactly_and_trains_on(trained, suffix, images, tmp_path):
  x, y = images
  path, student = str(tmp_path / f"student{suffix}"), trained.student
  for _ in range(2):  # A loaded model is saved and loaded again.
    quantization.save(student, path)
    student = quantization.load(path)
    np.testing.assert_array_equal(student(x), trained.outputs)
    assert str(quantization.scheme_of(student)) == trained.scheme
  before = student.get_weights()
  student.run_eagerly = bool(suffix)
  student.fit(x, y, batch_size=32, verbose=0)
  assert any((a != b).any() for a, b in zip(before, student.get_weights(), strict=True))
  if suffix:
    assert student.optimizer.iterations == 4


def test_saving_and_checkpoints_of_keras_work_too(trained, images, tmp_path):
  loaded = keras.models.load_model(trained.checkpoint)
  np.testing.assert_array_equal(loaded(images[0]), trained.outputs)
  trained.student.save_weights(tmp_path / "student.weights.h5")
  other = _quantized(trained.scheme, images)
  other.load_weights(tmp_path / "student.weights.h5")
  np.testing.assert_array_equal(other(images[0]), trained.outputs)


@pytest.mark.parametrize("scheme", ["w8a8", "w2a1"])
def test_a_distiller_with_a_quantized_student_is_saved_and_trains_on(scheme, images, tmp_path):
  x, y = images

  def teacher(inputs):
    return tf.reduce_mean(inputs, [1, 2]) @ tf.ones([3, 10])

  distiller = Distiller(teacher, _quantized(scheme, images), [SoftTargets(4.0)])
  distiller.compile("adam", loss=LOSS)
  fit = {"batch_size": 32, "shuffle": False, "verbose": 0}
  distiller.fit(x, y, **fit)
  distiller.save(tmp_path / "distiller.keras")
  loaded = keras.models.load_model(tmp_path / "distiller.keras")
  loaded.teacher = teacher
  np.testing.assert_array_equal(loaded.predict(x, verbose=0), distiller.predict(x, verbose=0))
  expected, actual = (d.fit(x, y, **fit).history["loss"] for d in (distiller, loaded))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_quantized_student_trains_compiled_by_xla(images):
  x, y = images
  model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3, activation="relu"), layers.Flatten()])
  model.add(layers.Dense(10))
  distiller = Distiller(None, quantization.quantize(model, "w2a1"), [SoftTargets(4.0, source="labels")])
  distiller.compile(keras.optimizers.SGD(0.1), loss=LOSS, jit_compile=True)
  assert np.isfinite(distiller.fit(x[:8, ::8, ::8], y[:8], batch_size=8, verbose=0).history["loss"]).all()


def test_training_the_student_does_not_change_the_float_model(images):
  model = _small()
  before = model.get_weights()
  student = _quantized("w2a1", images, model)
  student.compile("sgd", loss=LOSS)
  student.fit(*images, verbose=0)
  for a, b in zip(before, model.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)


def test_calibrated_eight_bit_student_predicts_as_the_float_model(images):
  x, y = images
  model = _small()
  model.compile(keras.optimizers.Adam(0.01), loss=LOSS)
  model.fit(x, y, epochs=15, batch_size=16, verbose=0)
  expected = model(x).numpy()
  student = _quantized("w8a8", images, model)
  error = np.abs(student(x) - expected).max()
  assert error < 0.1 * np.ptp(expected)
  uncalibrated = quantization.quantize(model, "w8a8")
  assert np.abs(uncalibrated(x) - expected).max() > 3 * error


def test_calibration_moves_ranges_only(images):
  student = quantization.quantize(_small(), "w8a8")
  names = [w.name for w in student.weights]
  before = student.get_weights()
  dataset = tf.data.Dataset.from_tensor_slices(images).batch(32)
  quantization.calibrate(student, dataset)
  changed = {n.split("/")[-1] for n, a, b in zip(names, before, student.get_weights(), strict=True) if (a != b).any()}
  assert changed and all(name.endswith(("_min:0", "_max:0")) for name in changed)
  low, high = student.layers[1].weights[:2]
  batches = images[0].reshape(2, 32, -1)
  np.testing.assert_allclose(high, batches.max(axis=(1, 2)).mean(), rtol=1e-5)
  assert low == 0


def test_calibration_needs_a_batch(images):
  with pytest.raises(ValueError, match="yielded no batch"):
    quantization.quantize(_small(), "w8a8", calibration_data=images[0][:0])


def test_missing_calibration_data_gives_a_warning(caplog):
  with caplog.at_level(logging.WARNING):
    quantization.quantize(_small(), "w8a8")
  assert "uncalibrated ranges" in caplog.text


def test_low_bit_rounds_every_convolution_and_leaves_the_logits_in_float(images):
  x, _ = images
  student = _quantized("w2a1", images, svhn_cnn(width=4))
  names = [layer.name for layer in student.layers]
  assert {f"quant_conv{i}" for i in range(7)} <= set(names) and "logits" in names
  for i in range(7):
    layer = student.get_layer(f"quant_conv{i}")
    layer(tf.zeros([1, *layer.input_shape[1:]]))
    assert len(np.unique(np.round(layer.layer.kernel, 5))) == 4
  features = keras.Model(student.inputs, student.get_layer("quant_relu3").output)(x)
  assert set(np.unique(features)) <= {0.0, 1.0}


def test_float_layers_and_weight_scale_are_parameters(images):
  student = _quantized(quantization.FixedGrid(2, 1, weight_scale=3.0), images, float_layers=["conv0"])
  names = {layer.name for layer in student.layers}
  assert "conv0" in names and "quant_logits" in names
  assert student.get_layer("quant_conv1").quantize_config.weight_scale == 3.0
  eight = _quantized("w8a8", images, float_layers=["logits"])
  assert "logits" in {layer.name for layer in eight.layers}
  with pytest.raises(ValueError, match="must be positive; got 0"):
    quantization.FixedGrid(2, 1, weight_scale=0)
  with pytest.raises(ValueError, match="float_layers names 'conv9'"):
    _quantized("w2a1", images, float_layers=["conv9"])


def _dense_sizes(model):
  """Sizes but those of sparse forms, which `test_pruned` checks."""
  sparse = ("nonzero_parameters", "sparse_bytes")
  return {name: size for name, size in quantization.sizes(model).items() if name not in sparse}


def test_sizes_count_the_network_and_not_its_ranges():
  counts = {"parameters": 293_882, "trainable_parameters": 292_954}
  assert _dense_sizes(svhn_cnn()) == {**counts, "float32_bytes": 1_175_528, "packed_bytes": 1_175_528}
  model = _small()
  kernels = 3 * 3 * 3 * 8 + 3 * 3 * 8 * 8
  dense = 7 * 7 * 8 * 10
  parameters = kernels + 4 * 8 + 8 + dense + 10
  rest = 4 * (parameters - kernels)
  counts = {"parameters": parameters, "trainable_parameters": parameters - 2 * 8}
  assert _dense_sizes(model) == {**counts, "float32_bytes": 4 * parameters, "packed_bytes": 4 * parameters}
  low = _dense_sizes(quantization.quantize(model, "w2a1"))
  assert low == {**counts, "float32_bytes": 4 * parameters, "packed_bytes": kernels // 4 + 2 * 4 + rest}
  channels = 8 + 8
  four = quantization.sizes(quantization.quantize(model, "w4a8"))["packed_bytes"]
  # tfmot's dense kernels have one range, its convolutions one for each output channel.
  assert four == (kernels + dense) // 2 + 4 * (channels + 1) + rest - 4 * dense


@pytest.mark.parametrize("name", ["w9a8", "int8", "w1a8", "w0a1", "W8A8", 8, "w2a1 "])
def test_unknown_schemes_are_refused(name):
  with pytest.raises(ValueError, match="unknown scheme"):
    quantization.parse_scheme(name)


def _chain(*stack):
  inputs = x = keras.Input((8, 8, 3))
  for layer in stack:
    x = layer(x)
  return keras.Model(inputs, x, name="chain")


class _Own(layers.Layer):
  """A layer with a weight, which no rule knows."""

  def build(self, input_shape):
    self.weight = self.add_weight("weight", input_shape[-1:])

  def call(self, inputs):
    return inputs * self.weight


class _Model(keras.Model):
  """A nested model with a `call` of its own."""

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    self.conv = layers.Conv2D(4, 1)

  def call(self, inputs):
    return self.conv(inputs)


def test_preflight_names_every_obstacle_at_once():
  model = _chain(
    layers.Rescaling(1 / 255, name="scale"),
    layers.Conv2D(4, 3, activation="relu", name="conv"),
    layers.BatchNormalization(axis=1, name="rows"),
    _Own(name="own"),
    layers.ReLU(threshold=0.5, name="high"),
    _Model(name="inner"),
  )
  with pytest.raises(ValueError, match="cannot be quantized") as error:
    quantization.quantize(model, "w8a8")
  for words in (
    "'rows' (BatchNormalization): normalizes axes [1]; only the last, 3,",
    "'high' (ReLU): a ReLU with a threshold has no 8-bit form",
    "'own' (_Own): its weights have no 8-bit form",
    "'inner' (_Model): a nested model with a `call` of its own",
    "to_tflite(model, path, representative_data=...)",
  ):
    assert words in str(error.value)
  assert "'scale'" not in str(error.value)


@pytest.mark.parametrize(
  "layer, words",
  [
    (layers.Conv2D(2, 1, activation="elu", name="it"), "activation elu has no 8-bit form"),
    (layers.Conv2D(2, 1, dtype="mixed_float16", name="it"), "computes in float16"),
    (layers.TimeDistributed(layers.GRU(2), name="it"), "its weights have no 8-bit form"),
  ],
)
def test_preflight_names_the_layer_and_the_remedy(layer, words):
  with pytest.raises(ValueError, match=f"'it'.*{words}"):
    quantization.quantize(_chain(layer), "w8a8")


@pytest.mark.parametrize(
  "layer, words, options",
  [
    (layers.Dense(4, activation="elu"), "allow_float=True.*with 2 float tensors", {"allow_float": True}),
    (_Own(), "all in integers", {}),
  ],
)
def test_the_error_has_the_size_of_the_file_that_is_quantized_after_training(layer, words, options, tmp_path):
  model = keras.Sequential([keras.Input((8,)), layer, layers.Dense(2)])
  with pytest.raises(ValueError, match=words) as error:
    quantization.quantize(model, "w8a8")
  stated = int(re.search(r"gives ([\d,]+) bytes", str(error.value))[1].replace(",", ""))
  data = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
  written = to_tflite(model, tmp_path / "a.tflite", representative_data=data, **options)
  assert abs(written - stated) < 600  # The written file also has metadata.


def test_preflight_of_fixed_grids():
  model = _chain(
    layers.Conv2D(4, 3, activation="tanh", name="curved"),
    layers.LayerNormalization(name="norm"),
    layers.LeakyReLU(name="leaky"),
    layers.Activation("swish", name="swish"),
  )
  with pytest.raises(ValueError, match="cannot be quantized") as error:
    quantization.quantize(model, "w2a1")
  for words in ("'curved' (Conv2D)", "'leaky' (LeakyReLU)", "'swish' (Activation)"):
    assert f"{words}: only the features of a plain ReLU are rounded" in str(error.value)
  assert "'norm' (LayerNormalization): its weights have no low-bit form" in str(error.value)


@keras.utils.register_keras_serializable("tests")
class HardSwish(layers.Layer):
  def call(self, inputs):
    return inputs * tf.nn.relu6(inputs + 3.0) / 6.0


@pytest.mark.parametrize(
  "after", [HardSwish, layers.Softmax, lambda: layers.ReLU(negative_slope=0.1), lambda: layers.ReLU(threshold=1.0)]
)
def test_fixed_grids_need_plain_relus(after):
  model = _chain(layers.Conv2D(2, 1), layers.ReLU(), layers.Conv2D(2, 1), after())
  with pytest.raises(ValueError, match="only the features of a plain ReLU are rounded"):
    quantization.quantize(model, "w2a1")


@pytest.mark.parametrize("scheme", ["w2a1", "w8a4"])
def test_a_fixed_grid_needs_a_relu_and_a_kernel(scheme):
  model = _chain(layers.Conv2D(2, 1), layers.BatchNormalization(), layers.MaxPooling2D(), layers.Conv2D(2, 1))
  with pytest.raises(ValueError, match=f"it has no ReLU, whose features {scheme} rounds"):
    quantization.quantize(model, scheme)
  with pytest.raises(ValueError, match="it has no layer with a kernel to round"):
    quantization.quantize(_chain(layers.ReLU()), scheme)


def test_the_two_dimensional_form_of_a_one_dimensional_convolution_is_quantized():
  inputs = keras.Input((20, 4))
  x = layers.SeparableConv2D(3, (1, 3))(layers.Reshape((1, 20, 4))(inputs))
  quantization.quantize(keras.Model(inputs, layers.Flatten()(x)), "w8a8")


def test_int4_has_no_transposed_convolution():
  model = _chain(layers.Conv2DTranspose(2, 2, name="up"))
  with pytest.raises(ValueError, match="'up' .*no transposed convolution with int4.* use w5a8 or more"):
    quantization.quantize(model, "w4a8")
  quantization.quantize(model, "w5a8")


def test_preflight_accepts_all_layers_that_tfmot_quantizes(images):
  residual = keras.Input((32, 32, 3))
  x = layers.Conv2D(4, 3, padding="same", activation="relu")(residual)
  y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
  y = layers.ReLU()(layers.BatchNormalization()(y))
  y = layers.SeparableConv2D(4, 3, padding="same")(y)
  z = layers.ReLU()(layers.Add()([x, y]))
  model = keras.Model(residual, layers.Dense(10)(layers.GlobalAveragePooling2D()(z)))
  student = _quantized("w8a8", images, model)
  assert np.isfinite(student(images[0])).all()


def test_preflight_refuses_other_models():
  class Own(keras.Model):
    pass

  with pytest.raises(ValueError, match="only functional and Sequential"):
    quantization.quantize(Own(), "w8a8")
  with pytest.raises(ValueError, match="has no input shape yet"):
    quantization.quantize(keras.Sequential([layers.Dense(2)]), "w8a8")


def test_load_raises_for_missing_and_damaged_files(tmp_path, images):
  with pytest.raises(FileNotFoundError, match="no model at"):
    quantization.load(str(tmp_path / "none.keras"))
  path = tmp_path / "student.keras"
  quantization.save(_quantized("w2a1", images), str(path))
  path.write_bytes(path.read_bytes()[:5000])
  with pytest.raises(ValueError, match="does not hold a readable model"):
    quantization.load(str(path))
  with pytest.raises(ValueError, match=r"must end in .keras or .h5"):
    quantization.save(_small(), str(tmp_path / "student.pb"))
  assert [p.name for p in tmp_path.iterdir()] == ["student.keras"]


def test_ranges_of_relu_equal_those_of_tfmot_in_every_step():
  inputs = keras.Input((8, 8, 3))
  x = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
  outputs = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization()(x))
  model = keras.Model(inputs, outputs)
  ours = quantization.quantize(model, "w8a8", calibration_data=np.random.default_rng(0).normal(size=(16, 8, 8, 3)))
  theirs = quantization.quantize(model, "w8a8", calibration_data=np.random.default_rng(0).normal(size=(16, 8, 8, 3)))
  (quantizer,) = theirs.get_layer("quant_relu")._output_quantizers
  plain = tfmot.quantization.keras.quantizers.MovingAverageQuantizer(**quantizer.get_config())
  assert type(quantizer) is not type(plain)
  theirs.get_layer("quant_relu")._output_quantizers = [plain]
  for seed in range(3):
    batch = np.random.default_rng(seed).normal(size=(16, 8, 8, 3)).astype(np.float32)
    found = []
    for quantized in (ours, theirs):
      with tf.GradientTape() as tape:
        outputs = quantized(batch, training=True)
        loss = tf.reduce_sum(outputs**2)
      found.append([outputs, *tape.gradient(loss, quantized.trainable_variables), *quantized.weights])
    for a, b in zip(*found, strict=True):
      np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(ours(batch), theirs(batch))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_code_in_a_file_runs_only_without_safe_mode(tmp_path, name):
  path, ran = tmp_path / name, tmp_path / "ran"
  inputs = keras.Input((2,))
  code = layers.Lambda(lambda x, to=str(ran): open(to, "w").close() or x)  # noqa: SIM115
  quantization.save(keras.Model(inputs, code(inputs)), str(path))
  ran.unlink()
  with pytest.raises(ValueError, match="Lambda"):
    quantization.load(str(path))
  assert not ran.exists()
  quantization.load(str(path), safe_mode=False)
  assert ran.exists()
