"""Every kernel is rounded in training on the grid of the exported file, whatever layers surround it."""

import re

import numpy as np
import pytest
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.deploy._interpreter import interpreter, run
from tfkd.quantization import _quantize
from tfkd.quantization.export_check import check_export

layers = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.random((16, 12, 12, 3), np.float32)


def _linear(kind, **options):
  return {
    "conv": lambda: layers.Conv2D(4, 3, **options),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, **options),
    "separable": lambda: layers.SeparableConv2D(4, 3, **options),
    "transposed": lambda: layers.Conv2DTranspose(4, 2, strides=2, **options),
    "dense": lambda: layers.Dense(4, **options),
  }[kind]()


def _after(style, x, kind):
  """A layer of a kind on x, and what may follow it."""
  if style == "argument":
    return _linear(kind, activation="relu")(x)
  x = _linear(kind)(x)
  if "normalised" in style:
    x = layers.BatchNormalization(momentum=0.0)(x)
  return {
    "layer": layers.ReLU(), "activation": layers.Activation("relu"), "relu6": layers.ReLU(6.0),
    "leaky": layers.LeakyReLU(), "slope": layers.ReLU(negative_slope=0.1), "swish": layers.Activation("swish"),
    "normalised": layers.ReLU(), "normalised swish": layers.Activation("swish"), "linear": layers.Activation("linear"),
  }[style](x)  # fmt: skip


KINDS = ("conv", "depthwise", "separable", "transposed", "dense")
STYLES = (
  "argument", "layer", "activation", "relu6", "leaky", "slope", "swish", "normalised", "normalised swish", "linear",
)  # fmt: skip


def _network(style):
  """A chain of all kinds of layers, each followed in one style, and a dense layer at the end."""
  inputs = keras.Input((12, 12, 3))
  x = inputs
  for kind in KINDS:
    x = _after(style, x, kind)
  model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)), name="network")
  for layer in model.layers:
    if isinstance(layer, layers.BatchNormalization):
      gamma, beta, *statistics = layer.get_weights()
      rng = np.random.default_rng(0)
      layer.set_weights([gamma + 0.3 * rng.random(len(gamma)), beta + 0.3 * rng.random(len(beta)), *statistics])
  model(IMAGES, training=True)  # Without momentum: the statistics are those of these images.
  return model


def _kernels(model):
  return sum("kernel" in weight.name for weight in model.weights)


def _rounded(student):
  return [vars for layer in student.layers for vars in getattr(layer, "_weight_vars", ())]


def _without_trial(monkeypatch):
  """Leaves out the trial conversion of `quantize`, where the test converts the same network itself."""
  monkeypatch.setattr(_quantize, "check_export", lambda *args, **kwargs: None)


@pytest.mark.parametrize("style", STYLES)
def test_every_kernel_is_rounded_and_the_file_reproduces_the_student(style, tmp_path, monkeypatch):
  if style != "normalised swish":
    _without_trial(monkeypatch)
  model = _network(style)
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  assert len(_rounded(student)) == _kernels(model) == 7
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)  # Raises for a tensor that is not an integer.
  opened = interpreter(path)
  steps = np.abs(run(opened, IMAGES) - student(IMAGES).numpy()) / opened.get_output_details()[0]["quantization"][0]
  assert steps.max() <= 4 and steps.mean() < 1


@pytest.mark.parametrize("scheme, levels", [("w2a8", 3), ("w3a8", 7), ("w4a8", 15), ("w5a8", 31), ("w8a8", 255)])
def test_the_file_holds_the_grid_of_training(scheme, levels, tmp_path, monkeypatch):
  """Symmetric levels for each output channel, in float64: round(k / s) s, s = max |k| / (2^(bits - 1) - 1)."""
  _without_trial(monkeypatch)
  inputs = keras.Input((12, 12, 3))
  x = layers.ReLU()(layers.Conv2D(4, 3, name="conv", use_bias=False)(inputs))
  model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
  student = quantization.quantize(model, scheme, calibration_data=IMAGES)
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  kernel = model.get_layer("conv").kernel.numpy().astype(np.float64)
  scale = np.abs(kernel).max(axis=(0, 1, 2)) / (levels // 2)
  expected = np.transpose(np.round(kernel / scale), [3, 0, 1, 2])
  opened = interpreter(path)
  (found,) = (d for d in opened.get_tensor_details() if tuple(d["shape"]) == expected.shape)
  assert _type(path, found["index"]) == ("INT8" if levels > 15 else "INT4")
  values = opened.get_tensor(found["index"]) * found["quantization_parameters"]["scales"][:, None, None, None]
  np.testing.assert_allclose(values, expected * scale[:, None, None, None], rtol=1e-5, atol=1e-7)
  # The training's own forward pass has these levels, too.
  wrapper = student.get_layer("quant_conv")
  wrapper(IMAGES, training=True)
  np.testing.assert_allclose(wrapper.layer.kernel, np.transpose(expected, [1, 2, 3, 0]) * scale, rtol=1e-4, atol=1e-6)


def test_a_shared_kernel_has_the_grid_of_training(tmp_path, monkeypatch):
  """TensorFlow's converter gives it int8, with a range of its own for each output."""
  _without_trial(monkeypatch)
  inputs = keras.Input((4,))
  shared, parts = [], []
  for seed in (0, 1, 9):  # With levels half-way between two of int8, too.
    rng = np.random.default_rng(seed)
    layer = layers.Dense(4, activation="relu", name=f"shared{seed}")
    parts.append(layer(layer(inputs)))
    layer.set_weights([rng.normal(size=(4, 4)), rng.normal(size=4)])
    shared.append(layer)
  model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(parts)))
  student = quantization.quantize(model, "w4a8", calibration_data=rng.normal(size=(16, 4)))
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  opened = interpreter(path)
  found = [
    opened.get_tensor(d["index"]) * d["quantization_parameters"]["scales"][:, None]
    for d in opened.get_tensor_details()
    if tuple(d["shape"]) == (4, 4)
  ]
  assert len(found) == 3
  for layer in shared:
    kernel = layer.kernel.numpy().astype(np.float64)
    scale = np.abs(kernel).max() / 7
    expected = np.round(kernel / scale).T * scale
    nearest = min(found, key=lambda values, expected=expected: np.abs(values - expected).max())
    np.testing.assert_allclose(nearest, expected, rtol=1e-5, atol=1e-6)


def _type(path, index):
  """Name of the type in which a file stores a tensor."""
  from ai_edge_litert import schema_py_generated as schema

  with open(path, "rb") as file:
    model = schema.Model.GetRootAs(file.read(), 0)
  number = model.Subgraphs(0).Tensors(index).Type()
  return next(name for name, value in vars(schema.TensorType).items() if value == number)


def test_an_activation_argument_and_a_relu_layer_give_the_same_student(tmp_path):
  sizes, outputs, files = [], [], []
  for style in ("argument", "layer", "activation"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = _after(style, _after(style, inputs, "conv"), "depthwise")
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)), name="network")
    student = quantization.quantize(model, "w4a8", calibration_data=IMAGES)
    sizes.append(quantization.sizes(student))
    outputs.append(student(IMAGES).numpy())
    path = str(tmp_path / f"{style}.tflite")
    deploy.to_tflite(student, path)
    files.append(run(interpreter(path), IMAGES))
  for i in (1, 2):
    assert sizes[i] == sizes[0]
    np.testing.assert_array_equal(outputs[i], outputs[0])
    np.testing.assert_array_equal(files[i], files[0])


def _normalised_first(name, x):
  if name == "pre-activation":
    for _ in range(2):
      y = layers.ReLU()(layers.BatchNormalization()(layers.GaussianNoise(0.1)(x)))
      x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(y)])
    return layers.ReLU()(layers.BatchNormalization()(x))
  return layers.Conv2D(4, 1)(layers.BatchNormalization()(layers.ReLU()(x)))


def _block(name):
  inputs = x = keras.Input((12, 12, 3))

  def conv(x, width, size=1):
    x = layers.Conv2D(width, size, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization()(x))

  x = conv(x, 8, 3)
  if name == "inception":
    x = layers.MaxPooling2D()(x)
    x = layers.Concatenate()([conv(x, 4), conv(x, 4), conv(layers.AveragePooling2D(3, 1, padding="same")(x), 4)])
  elif name == "dense":
    for _ in range(2):
      x = layers.Concatenate()([x, conv(x, 4, 3)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
  elif name == "residual, not normalised":
    x = layers.ReLU()(layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)]))
  elif name == "read before and after its ReLU":
    y = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.Add()([y, layers.Conv2D(8, 1)(layers.ReLU()(y))])
  elif name == "shared":
    shared = layers.Conv2D(8, 3, padding="same")
    x = layers.ReLU()(shared(layers.ReLU()(shared(x))))
  elif name == "u-net":
    down = conv(layers.MaxPooling2D()(x), 8, 3)
    x = layers.Concatenate()([x, layers.Conv2DTranspose(4, 2, strides=2, activation="relu")(down)])
  else:
    x = _normalised_first(name, x)
  outputs = layers.Dense(3)(layers.Flatten()(layers.MaxPooling2D(6)(x)))
  return keras.Model(inputs, outputs, name="block")


@pytest.mark.parametrize(
  "name",
  [
    "inception", "dense", "residual, not normalised", "read before and after its ReLU", "shared", "u-net",
    "normalised first", "pre-activation",
  ],
)  # fmt: skip
def test_blocks_of_known_networks_become_integers(name, tmp_path, monkeypatch):
  if name != "u-net":
    _without_trial(monkeypatch)
  model = _block(name)
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  assert len(_rounded(student)) == _kernels(model)
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  opened = interpreter(path)
  steps = np.abs(run(opened, IMAGES) - student(IMAGES).numpy()) / opened.get_output_details()[0]["quantization"][0]
  assert steps.max() <= 3


def test_layers_that_were_split_keep_names_outputs_and_weights(monkeypatch):
  _without_trial(monkeypatch)
  model = _network("swish")
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  # Keras numbers the layers of a process.
  names = {re.sub(r"conv2d_\d+", "conv2d", layer.name.removeprefix("quant_")) for layer in student.layers}
  assert {"separable_conv2d", "separable_conv2d_depthwise"} <= names
  difference = np.abs(student(IMAGES).numpy() - model(IMAGES).numpy()).max()
  assert difference < 0.1 * np.ptp(model(IMAGES).numpy())


def test_averages_and_maxima_of_one_tensor_become_integers(tmp_path):
  """LiteRT's average pooling keeps the range of its input, which other layers read, too."""
  inputs = keras.Input((12, 12, 3))
  x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs)))
  mean = layers.AveragePooling2D(3, 1, padding="same", name="mean")(x)
  largest = layers.MaxPooling2D(3, 1, padding="same")(x)
  parts = [layers.Conv2D(4, 1)(part) for part in (x, mean, largest)]
  x = layers.Concatenate()([mean, largest, *parts])
  model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="pooled")
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  opened = interpreter(path)
  steps = np.abs(run(opened, IMAGES) - student(IMAGES).numpy()) / opened.get_output_details()[0]["quantization"][0]
  assert steps.max() < 3.01


def test_a_shared_normalisation_that_cannot_fold_is_named_before_training():
  inputs = keras.Input((12, 12, 3))
  shared = layers.BatchNormalization()
  x = shared(layers.Add()([shared(layers.Conv2D(3, 3, padding="same", name="conv")(inputs)), inputs]))
  with pytest.raises(ValueError, match="does not convert to an integer file.*conv, batch_normalization"):
    quantization.quantize(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), "w8a8")


def test_a_layer_that_reads_indices_stays_in_float_on_request(tmp_path):
  words = np.random.default_rng(0).integers(0, 9, (16, 6)).astype(np.int32)
  stack = [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4, name="words"), layers.Flatten(), layers.Dense(2)]
  student = quantization.quantize(keras.Sequential(stack), "w8a8", calibration_data=words, float_layers=["words"])
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path, allow_float=True)
  expected = student(words).numpy()
  assert np.abs(run(interpreter(path), words) - expected).max() < 0.02 * np.ptp(expected)


@pytest.mark.parametrize("scheme", ["w8a8", "w2a1"])
def test_regularizers_of_features_count_once(scheme):
  inputs = keras.Input((12, 12, 3))
  x = layers.Conv2D(4, 3, activation="relu", activity_regularizer=keras.regularizers.L2(0.1), name="conv")(inputs)
  x = layers.ActivityRegularization(l1=0.2, name="regularized")(x)
  student = quantization.quantize(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), scheme)
  names = [layer.name for layer in student.layers if layer.name.removeprefix("quant_") in ("conv", "regularized")]
  features = keras.Model(student.inputs, [student.get_layer(name).output for name in names])
  a, b = (value.numpy().astype(np.float64) for value in features(IMAGES))
  student(IMAGES)
  assert len(student.losses) == 2
  expected = (0.1 * np.sum(a**2) + 0.2 * np.sum(np.abs(b))) / len(IMAGES)
  np.testing.assert_allclose(float(sum(student.losses)), expected, rtol=1e-5)


@pytest.mark.parametrize(
  "layer, words",
  [
    (layers.Conv2D(4, 3, activation="swish", activity_regularizer="l2"), "activation swish.*ActivityRegularization"),
    (layers.ReLU(4.0), r"max_value=4.0 and negative_slope=0.0; use ReLU\(\)"),
    (layers.ReLU(threshold=1.0), "threshold has no 8-bit form"),
    (layers.ReLU(6.0, negative_slope=0.5), "max_value=6.0 and negative_slope=0.5"),
  ],
)
def test_a_layer_without_an_integer_form_is_named_by_rule(layer, words):
  inputs = keras.Input((12, 12, 3))
  model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layer(inputs))))
  with pytest.raises(ValueError, match=words):
    quantization.quantize(model, "w8a8")


@pytest.mark.parametrize("scheme", ["w4a8", "w2a1"])
def test_quantized_models_and_float_layers_as_one_string_are_refused(scheme):
  model = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="relu", name="a"), layers.Dense(2)])
  with pytest.raises(TypeError, match=r"float_layers must be a list of layer names; got 'a': use \['a'\]"):
    quantization.quantize(model, scheme, float_layers="a")
  with pytest.raises(ValueError, match="is already quantized: pass the float model from which it was made.$"):
    quantization.quantize(quantization.quantize(model, scheme), scheme)


def test_an_operation_without_a_tflite_form_is_named_before_training():
  inputs = keras.Input((12, 12, 3))
  x = layers.UpSampling2D(interpolation="bicubic")(layers.Conv2D(4, 3)(inputs))
  with pytest.raises(ValueError, match="TFLite has no operation for tf.ResizeBicubic.*Replace that layer.$"):
    quantization.quantize(keras.Model(inputs, layers.Conv2D(2, 1)(x)), "w8a8")


def test_the_trial_conversion_changes_no_range(monkeypatch):
  _without_trial(monkeypatch)
  student = quantization.quantize(_network("layer"), "w8a8")
  before = student.get_weights()
  check_export(_network("layer"), student, quantization.parse_scheme("w8a8"), allow_float=False)
  for a, b in zip(student.get_weights(), before, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_normalisation_without_a_convolution_is_saved(suffix, tmp_path):
  model = keras.Sequential([keras.Input((6, 6, 3)), layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)])
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES[:, :6, :6])
  path = str(tmp_path / f"student{suffix}")
  quantization.save(student, path)
  loaded = quantization.load(path)
  np.testing.assert_array_equal(loaded(IMAGES[:, :6, :6]), student(IMAGES[:, :6, :6]))


def test_quantize_does_not_change_the_float_model(monkeypatch):
  _without_trial(monkeypatch)
  model = _network("layer")
  quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  quantization.quantize(model, "w8a8", calibration_data=IMAGES, float_layers=["logits"])
  assert all(len(layer.inbound_nodes) == 1 for layer in model.layers)
  assert model.get_layer("logits").output.shape == (None, 3)
