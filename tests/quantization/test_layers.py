"""Layers that tfmot refuses become integers, with the outputs that they have in the Keras model."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tf_keras.src.applications.convnext import LayerScale

from tfkd import deploy, quantization
from tfkd.deploy._interpreter import ends, interpreter, run_by_name
from tfkd.keras3.activations import hard_sigmoid, hard_silu, leaky_relu
from tfkd.quantization.lowering import lower

layers = keras.layers
_NEGATIVE = keras.initializers.Constant(-99.0)
_LARGE = keras.initializers.RandomUniform(-2, 2)
IMAGE, SEQUENCE, ROW, TOKENS = (6, 6, 8), (9, 8), (8,), (7,)


def _squeeze_excite(gate, x):
  y = layers.GlobalAveragePooling2D(keepdims=True)(x)
  y = layers.Conv2D(8, 1, activation=gate)(layers.Conv2D(2, 1, activation="relu")(y))
  return layers.Multiply()([x, y])


def _written_hard_swish(x):
  """As `tf_keras.applications.MobileNetV3Small` writes it."""
  return layers.Multiply()([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])


def _preprocessed(x):
  x = layers.RandomFlip()(layers.Rescaling(1 / 2.0, -0.1)(x))
  mean, variance = np.linspace(-1, 1, 8), np.linspace(0.5, 2, 8)
  return layers.Conv2D(4, 3)(layers.Normalization(mean=mean, variance=variance)(x))


def _convnext_block(x):
  y = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(8, 3, padding="same", groups=8)(x))
  return x + LayerScale(0.1, 8, name="scale")(layers.Dense(8)(layers.Dense(16, activation="gelu")(y)))


def _conv(filters, initializer="glorot_uniform", **options):
  return layers.Conv2D(filters, 1, kernel_initializer=initializer, **options)


def _concatenated(x):
  """As a block of DenseNet: x is read by a concatenation, whose range is larger, and by others."""
  kind = layers.Conv2D if len(x.shape) == 4 else layers.Conv1D
  for _ in range(2):
    y = kind(4, 1, kernel_initializer=keras.initializers.RandomUniform(-1, 1))(kind(8, 1, activation="relu")(x))
    x = layers.Concatenate()([x, layers.Dropout(0.1)(y)])
  return kind(8, 1, activation="relu")(x)


def _concatenated_averages(x):
  """Of windows that reach over the border, which LiteRT rounds in the range of x."""
  x = layers.AveragePooling2D(3, 2, "same")(x)
  return layers.Concatenate()([x, _conv(4, _LARGE)(x)])


def _normalized(kind, x):
  return layers.ReLU()(layers.BatchNormalization()(kind(x)))


def _separable(x):
  return layers.Activation("swish")(layers.BatchNormalization()(layers.SeparableConv1D(4, 3, strides=2)(x)))


def _transformer(x):
  y = layers.LayerNormalization()(x)
  x = layers.Add()([x, layers.MultiHeadAttention(2, 4, value_dim=3)(y, y)])
  y = layers.Dense(8)(layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x)))
  return layers.Add()([x, y])


CASES = {
  "hard-swish, written": (IMAGE, lambda x: _written_hard_swish(layers.Conv2D(8, 1)(x))),
  "hard-swish": (IMAGE, lambda x: layers.Conv2D(8, 1, activation=hard_silu)(x)),
  "leaky": (IMAGE, lambda x: layers.Conv2D(8, 1, activation=leaky_relu)(x)),
  "squeeze-excite": (IMAGE, functools.partial(_squeeze_excite, "sigmoid")),
  "squeeze-excite, hard": (IMAGE, functools.partial(_squeeze_excite, hard_sigmoid)),
  "squeeze-excite, Keras 2's hard": (IMAGE, functools.partial(_squeeze_excite, "hard_sigmoid")),
  "preprocessed": (IMAGE, _preprocessed),
  "convnext": (IMAGE, _convnext_block),
  "lone normalization": (IMAGE, lambda x: layers.Conv2D(4, 1)(layers.BatchNormalization()(layers.ReLU()(x)))),
  "upsampled": (IMAGE, lambda x: layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(4, 3)(x))),
  "padded": (IMAGE, lambda x: layers.Cropping2D(1)(layers.Conv2D(4, 3)(layers.ZeroPadding2D(2)(x)))),
  "merged": (IMAGE, lambda x: layers.Average()([x, layers.Maximum()([layers.Conv2D(8, 1)(x), x])])),
  "zero scales": (IMAGE, lambda x: x + layers.BatchNormalization(gamma_initializer="zeros", name="zeros")(_conv(8)(x))),
  "dead ReLU": (IMAGE, lambda x: layers.Concatenate()([x, layers.ReLU()(_conv(2, bias_initializer=_NEGATIVE)(x))])),
  "slopes of zero": (IMAGE, lambda x: layers.PReLU(shared_axes=[1, 2], name="zero")(layers.ReLU()(x))),
  "concatenated with what it read": (IMAGE, lambda x: _concatenated(layers.MaxPooling2D()(x))),
  "concatenated, padded": (IMAGE, lambda x: _concatenated(layers.ZeroPadding2D()(layers.Dropout(0.1)(x)))),
  "concatenated, averaged": (IMAGE, lambda x: _concatenated(layers.AveragePooling2D()(x))),
  "concatenated, averaged with borders": (IMAGE, _concatenated_averages),
  "concatenated, then padded": (
    IMAGE,
    lambda x: layers.Concatenate()([layers.ZeroPadding2D()(layers.Conv2D(n, 1)(x)) for n in (2, 4)]),
  ),
  "concatenated sequences": (SEQUENCE, lambda x: _concatenated(layers.AveragePooling1D(2, 1)(x))),
  "concatenated, flattened": (IMAGE, lambda x: layers.Concatenate()([x, _conv(4, _LARGE)(x)])),
  "concatenated gate": (IMAGE, lambda x: layers.Concatenate()([_conv(4, activation="swish")(x), _conv(4, _LARGE)(x)])),
  "maximum, transposed": (IMAGE, lambda x: layers.Permute((2, 3, 1))(layers.Maximum()([x, _conv(8, _LARGE)(x)]))),
  "stacked": (IMAGE, lambda x: tf.stack([x, _conv(8, _LARGE)(x)], axis=-1)),
  "concatenated rows": (ROW, lambda x: layers.Reshape((4, 3))(layers.Concatenate()([x, layers.Dense(4)(x)]))),
  "difference": (IMAGE, lambda x: layers.Subtract()([layers.Conv2D(8, 1)(x), x])),
  "operations": (IMAGE, lambda x: tf.nn.relu(layers.Conv2D(4, 3)(x) * 2 + 1)[:, 1:]),
  "function": (IMAGE, lambda x: layers.Lambda(lambda t: t * t)(layers.Conv2D(4, 3)(x))),
  "layer normalization": (ROW, lambda x: layers.LayerNormalization()(layers.Dense(6)(x))),
  "convolution of sequences": (SEQUENCE, lambda x: layers.Conv1D(4, 3, strides=2, activation="tanh")(x)),
  "groups of sequences": (SEQUENCE, lambda x: layers.AveragePooling1D()(layers.Conv1D(4, 3, groups=2)(x))),
  "causal": (
    SEQUENCE,
    functools.partial(_normalized, lambda x: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(x)),
  ),
  "separable of sequences": (SEQUENCE, _separable),
  "depthwise of sequences": (SEQUENCE, lambda x: layers.MaxPooling1D()(layers.DepthwiseConv1D(3)(x))),
  "transposed of sequences": (SEQUENCE, lambda x: layers.Conv1DTranspose(4, 3, strides=2)(x)),
  "sum of three": (SEQUENCE, lambda x: layers.Add()([x, layers.Dense(8)(x), layers.Dense(8)(x)])),
  "mean of three": (SEQUENCE, lambda x: layers.Average()([x, layers.Dense(8)(x), layers.Dense(8)(x)])),
  "sum of one": (SEQUENCE, lambda x: layers.Add()([x, x]) + layers.Dense(8)(x)),
  "sum of one, written": (SEQUENCE, lambda x: layers.Dense(4)(x + x)),
  "slopes of channels": (SEQUENCE, lambda x: layers.PReLU(shared_axes=[1])(layers.Dense(4)(x))),
  "at each step": (SEQUENCE, layers.TimeDistributed(layers.Dense(4, activation="gelu"))),
  "attention": (SEQUENCE, lambda x: layers.Attention()([x, layers.Dense(8)(x)])),
  "einsum": (
    SEQUENCE,
    lambda x: layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", activation="gelu")(x),
  ),
  "transformer": (SEQUENCE, _transformer),
  "tokens": (TOKENS, lambda x: layers.GlobalAveragePooling1D()(layers.Embedding(20, 8)(x))),
}

_MOST_STEPS = {  # LiteRT rounds means and interpolated values in the range of the input, and the student does not.
  "upsampled": 4,
  "groups of sequences": 4,
  "concatenated, averaged with borders": 8,
} | {name: 4 for name in CASES if name.startswith("concatenated") and "borders" not in name}  # Five convolutions.


def _model(shape, *bodies):
  """Returns a model with an input and an output for each body."""
  dtype = "int32" if shape == TOKENS else "float32"
  inputs = [keras.Input(shape, dtype=dtype, name=f"x{i}") for i in range(len(bodies))]
  outputs = [
    layers.Dense(3, name=f"logits{i}")(layers.Flatten()(body(x)))
    for i, (x, body) in enumerate(zip(inputs, bodies, strict=True))
  ]
  model = keras.Model(*([inputs, outputs] if len(bodies) > 1 else [*inputs, *outputs]), name="small")
  rng = np.random.default_rng(0)
  for layer in model.layers:
    if not isinstance(layer, layers.Normalization) and not layer.name.startswith("zero"):
      # Kernels are random already.
      weights = [w + 0.1 * rng.random(w.shape) if w.ndim < 2 else w for w in layer.get_weights()]
      layer.set_weights(weights)
  return model


def _data(shape):
  rng = np.random.default_rng(1)
  return rng.integers(0, 20, (32, *shape)).astype(np.int32) if shape == TOKENS else rng.normal(size=(32, *shape))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """Outputs by case: of the model, of the lowered one, of the student, saved and loaded, of the file; and its step.

  The cases of one shape are independent parts of one model.
  """
  directory, found = tmp_path_factory.mktemp("layers"), {}
  for shape in (IMAGE, SEQUENCE, ROW, TOKENS):
    keras.utils.set_random_seed(0)
    bodies = {name: body for name, (of_case, body) in CASES.items() if of_case == shape}
    model, data = _model(shape, *bodies.values()), [_data(shape)] * len(bodies)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr("tfkd.quantization._quantize.check_export", lambda *args, **options: None)  # Converted below.
      student = quantization.quantize(model, "w8a8", calibration_data=data if len(data) > 1 else data[0])
    quantization.save(student, directory / "student.keras")
    loaded = quantization.load(directory / "student.keras", safe_mode=False)  # There is a Lambda.
    path = directory / "student.tflite"
    deploy.to_tflite(student, path)  # Raises for a tensor that is not an integer.
    names = ends(interpreter(path), deploy.read_metadata(path))
    rows = [tf.nest.flatten(m(data, training=False)) for m in (model, lower(model, ()), student, loaded)]
    rows.append(list(run_by_name(interpreter(path), data, names).values()))
    rows.append([details["quantization"][0] for details in names.taken.values()])
    found |= dict(zip(bodies, zip(*rows, strict=True), strict=True))
  return found


@pytest.mark.parametrize("name", CASES)
def test_a_layer_becomes_integers_and_its_file_reproduces_the_student(name, measured):
  *outputs, step = measured[name]
  original, lowered, student, loaded, of_file = map(np.asarray, outputs)
  # Before rounding, the lowered model computes the same, but for clips, which the rounding does.
  if "hard" not in name:
    np.testing.assert_allclose(lowered, original, atol=1e-5 * np.ptp(original))
  assert np.abs(student - original).mean() < 0.05 * original.std()
  steps = np.abs(of_file - student) / step
  assert steps.max() < _MOST_STEPS.get(name, 2) + 0.01
  np.testing.assert_array_equal(loaded, student)


def _operations(path):
  from ai_edge_litert import schema_py_generated as schema

  names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
  with open(path, "rb") as file:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))
  codes = [model.operatorCodes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
  return [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in codes]


def test_normalizations_of_sequences_fold_into_their_convolutions(tmp_path):
  def body(x):
    x = _normalized(lambda x: layers.DepthwiseConv1D(3, padding="same")(x), x)
    return _normalized(lambda x: layers.Conv1D(4, 1)(x), x)

  student = quantization.quantize(_model(SEQUENCE, body), "w4a8", calibration_data=_data(SEQUENCE))
  deploy.to_tflite(student, tmp_path / "a.tflite")
  found = _operations(tmp_path / "a.tflite")
  assert [name for name in found if name != "RESHAPE"] == ["DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED"]


def test_constants_that_are_applied_one_after_the_other_become_one_operation(tmp_path):
  def body(x):
    x = layers.Rescaling(0.5)(x) - 0.25
    return layers.Conv2D(4, 3)(layers.Normalization(mean=np.ones(8), variance=np.ones(8) * 4)(x) / 2)

  student = quantization.quantize(_model(IMAGE, body), "w8a8", calibration_data=_data(IMAGE))
  deploy.to_tflite(student, tmp_path / "a.tflite")
  assert _operations(tmp_path / "a.tflite") == ["DEPTHWISE_CONV_2D", "CONV_2D", "RESHAPE", "FULLY_CONNECTED"]


def test_layer_normalization_in_float64():
  """gamma (x - mean) / sqrt(variance + epsilon) + beta, of examples that a patch of constants is a part of."""
  data = _data(SEQUENCE)
  data[0, :4] = 0.3
  model = _model(SEQUENCE, lambda x: layers.LayerNormalization(epsilon=1e-2, name="norm")(x))
  gamma, beta = (weight.astype(np.float64) for weight in model.get_layer("norm").get_weights())
  mean, variance = data.mean(axis=-1, keepdims=True), data.var(axis=-1, keepdims=True)
  expected = gamma * (data - mean) / np.sqrt(variance + 1e-2) + beta
  student = quantization.quantize(model, "w8a8", calibration_data=data)
  found = keras.Model(student.inputs, student.get_layer("quant_norm").output)(data).numpy()
  assert np.isfinite(found).all()
  assert np.abs(found[1:] - expected[1:]).mean() < 0.03


def test_the_student_of_a_new_form_learns():
  data, labels = _data(SEQUENCE), np.arange(32) % 3
  model = _model(SEQUENCE, lambda x: _transformer(layers.Conv1D(8, 3, padding="same")(x)))
  student = quantization.quantize(model, "w4a8", calibration_data=data)
  student.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  history = student.fit(data, labels, epochs=8, verbose=0).history["loss"]
  assert np.isfinite(history).all() and history[-1] < 0.7 * history[0]


@pytest.mark.parametrize(
  "layer, words",
  [
    (layers.GRU(4, name="it"), "recurrent layers have no 8-bit form"),
    (layers.Bidirectional(layers.LSTM(4), name="it"), "recurrent layers have no 8-bit form"),
    (layers.LayerNormalization(axis=1, name="it"), "its weights have no 8-bit form"),
    (layers.PReLU(name="it"), "shared_axes"),
    (layers.Attention(use_scale=True, name="it"), "its weights have no 8-bit form"),
  ],
)
def test_layers_without_an_integer_form_are_named_before_training(layer, words):
  inputs = keras.Input(SEQUENCE)
  x = layer([inputs, inputs]) if isinstance(layer, layers.Attention) else layer(inputs)
  with pytest.raises(ValueError, match=f"'it'.*{words}"):
    quantization.quantize(keras.Model(inputs, x), "w8a8")


def test_float_operations_are_listed_with_what_to_pass_for_them(tmp_path):
  data = _data(IMAGE)
  model = _model(IMAGE, lambda x: layers.Lambda(lambda t: tf.math.softplus(t), name="curve")(layers.Conv2D(4, 3)(x)))
  with pytest.raises(ValueError, match=r"float_layers=\[.*'curve'\] to quantize, and allow_float=True") as error:
    quantization.quantize(model, "w8a8", calibration_data=data)
  advised = re.findall(r"'(\w+)'", re.search(r"float_layers=\[(.*?)\]", str(error.value))[1])
  student = quantization.quantize(model, "w8a8", calibration_data=data, float_layers=advised)
  deploy.to_tflite(student, tmp_path / "a.tflite", allow_float=True)


def test_kernels_that_share_a_constant_with_other_operations_keep_their_levels(tmp_path):
  """The converter stores equal constants once: here of a mean, of a scale, and of a layer with equal weights."""
  inputs = keras.Input((8, 8, 4))
  mean = layers.AveragePooling2D(name="mean")(inputs)
  ones = layers.DepthwiseConv2D(2, 2, depthwise_initializer="ones", name="ones")(inputs)
  scaled = layers.Rescaling(0.5)(layers.BatchNormalization()(layers.Concatenate()([mean, ones, mean, mean])))
  model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(scaled)))
  images = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype(np.float32)
  for scheme in ("w4a8", "w3a8"):
    student = quantization.quantize(model, scheme, calibration_data=images)
    path = tmp_path / f"{scheme}.tflite"
    deploy.to_tflite(student, path)
    opened = interpreter(path)
    (outputs,) = run_by_name(opened, images, ends(opened)).values()
    steps = np.abs(outputs - student(images).numpy()) / opened.get_output_details()[0]["quantization"][0]
    assert steps.max() < 5.01
