"""Whole models: graphs of all kinds, trainable flags, training, saving, and who takes Keras 3 models."""

import logging as python_logging

import keras as keras3
import numpy as np
import pytest
import tf_keras as keras

import tfkd
from tests.keras3.comparison import TOLERANCE, difference, randomize
from tfkd import from_keras3
from tfkd.deploy._interpreter import interpreter, run

L = keras3.layers
RNG = np.random.default_rng(0)
WORDS = RNG.integers(0, 4, (3, 5))
STATE = RNG.normal(size=(3, 3)).astype(np.float32)
VECTORS = RNG.normal(size=(3, 8)).astype(np.float32)


def _small(name="inner"):
  return keras3.Sequential([keras3.Input((8,)), L.Dense(8, activation="hard_silu"), L.BatchNormalization()], name=name)


def _nested_and_shared():
  inner, x = _small(), keras3.Input((8,), name="a")
  y = inner(x)
  return keras3.Model({"a": x}, {"y": y, "z": [inner(y), keras3.ops.mean(y, -1)]}), {"a": VECTORS}


def _functional_in_sequential():
  x = keras3.Input((8,))
  inner = keras3.Model(x, L.Add()([x, L.Dense(8)(x)]), name="residual")
  return keras3.Sequential([keras3.Input((8,)), inner, _small(), L.Dense(2)]), VECTORS


def _built_by_data():
  model = keras3.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])
  model(VECTORS)
  return model, VECTORS


def _called_twice():
  x, dense = keras3.Input((8,)), L.Dense(8, activation="tanh")
  return keras3.Model(x, dense(dense(x))), VECTORS


def _several_inputs():
  x, y = keras3.Input((8,), name="one"), keras3.Input((3,), name="two")
  z = L.Concatenate()([x, y])
  return keras3.Model([x, y], [L.Dense(2, name="first")(z), x]), [VECTORS, STATE]


def _embedded(mask_zero=True):
  words = keras3.Input((5,), dtype="int32")
  return words, L.Embedding(7, 4, mask_zero=mask_zero)(words)


def _masked():
  words, x = _embedded()
  x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
  return keras3.Model(words, L.GRU(3)(L.TimeDistributed(L.Dense(2))(x))), WORDS


def _masked_attention():
  words, x = _embedded()
  x = L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
  return keras3.Model(words, L.GlobalAveragePooling1D()(x)), WORDS


def _mask_lost_by_an_operation():
  words, x = _embedded()
  return keras3.Model(words, L.LSTM(3)(x + 1.0)), WORDS


def _mask_as_an_argument():
  words, x = _embedded(mask_zero=False)
  return keras3.Model(words, L.LSTM(3)(x, mask=keras3.ops.not_equal(words, 1))), WORDS


def _masked_sum():
  words, x = _embedded()
  return keras3.Model(words, L.LSTM(3)(L.Add()([x, L.Dropout(0.5)(x)]))), WORDS


def _union_of_masks():
  words, x = _embedded()
  y = L.Embedding(7, 4, mask_zero=True)(3 - words)
  return keras3.Model(words, L.LSTM(3)(L.Add()([x, y]))), WORDS


def _partly_masked_concatenation():
  words, x = _embedded()
  y = L.Embedding(7, 4)(words)
  return keras3.Model(words, L.LSTM(3)(L.Concatenate()([x, y]))), WORDS


def _initial_state():
  words, x = _embedded()
  h, c = keras3.Input((3,)), keras3.Input((3,))
  outputs = L.LSTM(3, return_state=True)(x, initial_state=[h, c])
  return keras3.Model([words, h, c], outputs), [WORDS, STATE, STATE]


def _frozen_base():
  base = _small("base")
  base.trainable = False
  x = keras3.Input((8,))
  return keras3.Model(x, L.Dense(2)(base(x, training=False))), VECTORS


def _partly_frozen():
  model = keras3.Sequential([keras3.Input((8,)), _small(), L.Dense(2), L.Dense(2)])
  model.layers[0].layers[1].trainable = False
  model.layers[1].trainable = False
  return model, VECTORS


def _partly_frozen_attention():
  x = keras3.Input((5, 4))
  y = L.TimeDistributed(keras3.Sequential([keras3.Input((4,)), L.Dense(4, name="a"), L.Dense(4, name="b")]))(x)
  y = L.BatchNormalization()(L.MultiHeadAttention(2, 3)(y, y))
  inner = keras3.Model(x, y)
  inner.layers[1].layer.layers[0].trainable = False
  inner.layers[-1].trainable = False
  x = keras3.Input((5, 4))
  return keras3.Model(x, L.LSTM(2)(inner(x))), RNG.normal(size=(3, 5, 4)).astype(np.float32)


def _adapted():
  layer = L.Normalization()
  layer.adapt(3.0 + 2.0 * VECTORS)
  return keras3.Sequential([keras3.Input((8,)), layer, L.Dense(2)]), VECTORS


def _single_example():
  return keras3.Sequential([keras3.Input(batch_shape=(1, 8)), L.Dense(2)]), VECTORS[:1]


MODELS = [value for name, value in list(globals().items()) if name.startswith("_") and callable(value)]
MODELS = [value for value in MODELS if value not in (_small, _embedded)]


def _flags(model):
  found = {layer.name: layer.trainable for layer in model._flatten_layers() if "input" not in layer.name}
  found.pop(model.name)
  return model.trainable, found


def _have_same_flags(one, other):
  (first, flags), (second, others) = _flags(one), _flags(other)
  common = flags.keys() & others.keys()  # Parts of layers, as of attention, have names of their own.
  top = {layer.name for layer in one.layers if "input" not in layer.name}
  return first == second and top <= common and all(flags[name] == others[name] for name in common)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__[1:])
def test_a_model_has_the_same_outputs_names_and_flags(make, tmp_path):
  model, data = make()
  if make is not _adapted:
    randomize(model)
  made = from_keras3(model)
  expected = model(data)
  assert difference(expected, made(data)) < TOLERANCE
  names = {layer.name for layer in model.layers}
  assert names <= {layer.name for layer in made.layers}
  assert _have_same_flags(model, made)
  assert {type(layer).__name__ for layer in made.layers} >= {"Sequential"} & {type(m).__name__ for m in model.layers}
  assert len(made.trainable_weights) == len(model.trainable_weights)
  flat = keras3.tree.flatten(expected)
  made.save(tmp_path / "model.keras")
  assert difference(flat, keras3.tree.flatten(keras.models.load_model(tmp_path / "model.keras")(data))) < TOLERANCE
  again = tfkd.to_keras3(made)
  assert difference(flat, keras3.tree.flatten(again(data))) < TOLERANCE
  assert _have_same_flags(model, again)


def _trainable():
  x = keras3.Input((8, 8, 3))
  y = L.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer="l2")(x)
  y = L.ReLU()(L.BatchNormalization(momentum=0.8)(y))
  y = L.BatchNormalization(name="frozen", trainable=False)(L.DepthwiseConv2D(3, activation="hard_silu")(y))
  y = keras3.ops.mean(y, axis=(1, 2)) * 2.0
  return randomize(keras3.Model(x, L.Dense(3, kernel_constraint="max_norm")(y)))


def test_an_epoch_of_training_equals_that_of_the_original():
  model = _trainable()
  made = from_keras3(model)
  images, labels = RNG.normal(size=(32, 8, 8, 3)).astype(np.float32), RNG.integers(0, 3, 32)
  for library, one in ((keras3, model), (keras, made)):
    one.compile(library.optimizers.SGD(0.05), library.losses.SparseCategoricalCrossentropy(from_logits=True))
    one.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
  assert difference(np.asarray(model(images)), made(images).numpy()) < 1e-3
  for layer in model.layers:
    for a, b in zip(layer.weights, made.get_layer(layer.name).weights, strict=True):
      # The fused operation of tf_keras averages variances of n / (n - 1), here 1.002, with factor 0.2.
      np.testing.assert_allclose(np.asarray(a), b.numpy(), atol=3e-3 if "moving_variance" in b.name else 1e-3)


def test_mixed_precision_stays():
  x = keras3.Input((8,))
  y = L.Dense(4, dtype="mixed_float16")(x)
  model = keras3.Model(x, L.Dense(2, dtype="float32")(y))
  made = from_keras3(model)
  assert [layer.dtype_policy.name for layer in made.layers[1:]] == ["mixed_float16", "float32"]
  assert difference(np.asarray(model(VECTORS)), made(VECTORS).numpy()) < 1e-2
  assert [layer.dtype_policy.name for layer in tfkd.to_keras3(made).layers[1:]] == ["mixed_float16", "float32"]


def test_options_of_layers_stay():
  layer = L.Dense(
    3, kernel_regularizer=keras3.regularizers.L1L2(0.1, 0.2), bias_constraint="non_neg", kernel_initializer="he_normal"
  )
  model = keras3.Sequential([keras3.Input((8,)), layer])
  made = from_keras3(model).layers[0]
  assert made.kernel_regularizer.get_config() == pytest.approx(layer.kernel_regularizer.get_config())
  assert isinstance(made.bias_constraint, keras.constraints.NonNeg)
  assert isinstance(made.kernel_initializer, keras.initializers.HeNormal)


@pytest.mark.parametrize(
  "make, data",
  [
    (lambda: L.StringLookup(vocabulary=["a", "c"]), np.array([["a", "b c"], ["c", "z"]])),
    (
      lambda: L.StringLookup(vocabulary=["a", "c"], output_mode="multi_hot", num_oov_indices=2),
      np.array([["a"], ["z"]]),
    ),
    (lambda: L.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=3), np.array([["a"], ["c b, z"]])),
    (lambda: L.IntegerLookup(vocabulary=[4, 7]), np.array([[4, 7], [9, 4]])),
    (lambda: L.HashedCrossing(5), [np.array([["a"], ["z"]]), np.array([[1], [2]])]),
  ],
)
def test_words_and_indices_are_looked_up_alike(make, data):
  several = isinstance(data, list)
  arrays = data if several else [data]
  inputs = [keras3.Input(a.shape[1:], dtype="string" if a.dtype.kind == "U" else "int64") for a in arrays]
  tensors = [keras3.ops.convert_to_tensor(a) for a in arrays]
  model = keras3.Model(inputs, make()(inputs if several else inputs[0]))
  expected, found = (np.asarray(one(tensors)).astype(np.float64) for one in (model, from_keras3(model)))
  np.testing.assert_array_equal(found, expected)


def test_a_distiller_a_quantized_student_and_a_file_are_made_of_a_keras_3_model(tmp_path, caplog):
  model = _trainable()
  images = RNG.normal(size=(4, 8, 8, 3)).astype(np.float32)
  expected = np.asarray(model(images))
  with caplog.at_level(python_logging.INFO, logger="absl"):
    distiller = tfkd.Distiller(from_keras3(_trainable()), model, [tfkd.objectives.SoftTargets()])
  assert [r for r in caplog.records if "student 'functional" in r.message and "converted to tf_keras" in r.message]
  assert difference(expected, distiller.student(images).numpy()) < TOLERANCE
  distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  distiller.fit(images, np.array([0, 1, 2, 0]), verbose=0)
  again = tfkd.to_keras3(distiller.student)
  assert difference(distiller.student(images).numpy(), np.asarray(again(images))) < TOLERANCE

  path = str(tmp_path / "student.tflite")
  tfkd.deploy.to_tflite(model, path)
  assert difference(expected, run(interpreter(path), images)) < TOLERANCE

  small = keras3.Sequential([keras3.Input((8, 8, 3)), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3)])
  tfkd.quantization.check(small, "w8a8")
  quantized = tfkd.quantization.quantize(small, "w8a8", calibration_data=images)
  assert difference(np.asarray(small(images)), quantized(images).numpy()) < 0.1
  tfkd.quantization.save(quantized, tmp_path / "quantized.keras")
  loaded = tfkd.quantization.load(tmp_path / "quantized.keras")
  assert difference(quantized(images).numpy(), loaded(images).numpy()) < TOLERANCE
