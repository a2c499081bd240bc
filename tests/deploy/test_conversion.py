"""TensorFlow's converter runs in a separate process, and its failures are errors."""

import json
import re

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

from tfkd import deploy, quantization
from tfkd.deploy._interpreter import interpreter, run
from tfkd.quantization import conversion

layers = keras.layers
RNG = np.random.default_rng(0)
SERIES = RNG.random((8, 12, 4), np.float32)
IMAGES = RNG.random((8, 12, 12, 3), np.float32)


def test_a_crash_of_the_converter_is_an_error_with_a_working_remedy(tmp_path):
  path = str(tmp_path / "a.tflite")

  def recurrent(unroll):
    return keras.Sequential([keras.Input((12, 4)), layers.GRU(4, unroll=unroll, name="steps"), layers.Dense(2)])

  with pytest.raises(ValueError, match=r"crashed \(SIG\w+\).* steps with unroll=True. Log: (\S+)") as error:
    deploy.to_tflite(recurrent(False), path, representative_data=SERIES)
  log = re.search(r"Log: (\S+)", str(error.value))[1]
  assert "Fatal Python error" in open(log, encoding="utf-8").read()  # noqa: SIM115
  # The next conversion starts another process. The converter leaves a Split in float for some weights, not for all.
  model = recurrent(True)
  deploy.to_tflite(model, path, representative_data=SERIES, allow_float=True)
  difference = np.abs(run(interpreter(path), SERIES) - model.predict(SERIES, verbose=0))
  assert difference.max() < 0.05


def test_float_tensors_that_no_operation_reads_are_ignored(tmp_path):
  path = str(tmp_path / "a.tflite")
  model = keras.Sequential([keras.Input((12, 4)), layers.LSTM(4), layers.Dense(2)])
  deploy.to_tflite(model, path, representative_data=SERIES)
  opened = interpreter(path)
  assert any(d["dtype"] == np.float32 for d in opened.get_tensor_details())
  expected = model.predict(SERIES, verbose=0)
  assert np.abs(run(opened, SERIES) - expected).max() < 0.15 * np.ptp(expected)


def test_float_tensors_that_operations_read_are_named():
  model = keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
  assert conversion.float_tensors(conversion.convert(model), None)


@pytest.mark.parametrize("integers", [False, True])
def test_a_keras_3_model_is_converted_with_its_weights(integers, tmp_path):
  inputs = keras3.Input((12, 12, 3))
  x = keras3.layers.BatchNormalization()(keras3.layers.Conv2D(4, 3, use_bias=False)(inputs))
  x = keras3.layers.GlobalAveragePooling2D()(keras3.layers.ReLU()(x))
  model = keras3.Model(inputs, keras3.layers.Dense(3)(x))
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(model, path, representative_data=IMAGES if integers else None)
  expected = np.asarray(model(IMAGES))
  np.testing.assert_allclose(run(interpreter(path), IMAGES), expected, atol=0.05 if integers else 1e-5)


def test_several_inputs_and_outputs_keep_their_names(tmp_path):
  a, b = keras.Input((3,), name="words", dtype="int32"), keras.Input((4,), name="numbers")
  x = layers.Concatenate()([layers.Flatten()(layers.Embedding(5, 2)(a)), b])
  model = keras.Model({"words": a, "numbers": b}, [layers.Dense(2, name="one")(x), layers.Dense(3, name="two")(x)])
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(model, path)
  signature = Interpreter(path).get_signature_runner("serving_default")
  words, numbers = np.array([[1, 2, 4]], np.int32), RNG.random((1, 4), np.float32)
  found = signature(words=words, numbers=numbers)
  for name, expected in zip(("one", "two"), model({"words": words, "numbers": numbers}), strict=True):
    np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


def test_several_inputs_and_outputs_of_a_keras_3_model(tmp_path):
  a, b = keras3.Input((3,), name="a"), keras3.Input((4,), name="b")
  x = keras3.layers.Concatenate()([a, b])
  outputs = {"second": keras3.layers.Dense(2, name="two")(x), "first": keras3.layers.Dense(3, name="one")(a)}
  model = keras3.Model({"b": b, "a": a}, outputs)
  data = {"a": RNG.random((8, 3), np.float32), "b": RNG.random((8, 4), np.float32)}
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(model, path, representative_data=data, io_dtype="float32")
  found = Interpreter(path).get_signature_runner("serving_default")(**{name: data[name][:1] for name in data})
  expected = model({name: data[name][:1] for name in data})
  for key in ("first", "second"):
    np.testing.assert_allclose(found[key], np.asarray(expected[key]), atol=0.05)


def _details(path):
  """Returns name, type and shape of each input and output."""
  runner = Interpreter(path).get_signature_runner("serving_default")
  return [
    {name: (d["dtype"], d["shape"].tolist()) for name, d in details.items()}
    for details in (runner.get_input_details(), runner.get_output_details())
  ]


@pytest.mark.usefixtures("no_trial_conversion")
def test_names_are_those_of_the_model_and_do_not_depend_on_the_process(tmp_path):
  path = str(tmp_path / "a.tflite")

  def names(inputs, outputs, **options):
    deploy.to_tflite(keras.Model(inputs, outputs), path, **options)
    return [list(side) for side in _details(path)]

  given, unnamed = keras.Input((4,), name="speech"), keras.Input((4,))
  assert names(given, layers.Dense(2, name="words")(given)) == [["speech"], ["words"]]
  assert names(unnamed, layers.Dense(2)(unnamed)) == [["images"], ["logits"]]
  assert names({"x/1": unnamed}, {"y": layers.Dense(2)(unnamed)}) == [["x_1"], ["y"]]
  assert names(unnamed, tf.reduce_sum(layers.Dense(2)(unnamed), 1, keepdims=True)) == [["images"], ["logits"]]
  # A quantized student has its float model's names, and data are named by the keys of the dict.
  image, numbers = keras.Input((8, 8, 3)), keras.Input((4,))
  x = layers.Conv2D(4, 3, activation="relu")(image)
  mask, kind = layers.Conv2D(2, 1, name="mask"), layers.Dense(3, name="kind")
  outputs = [mask(x), kind(layers.Concatenate()([layers.Flatten()(x), numbers]))]
  data = {"image": RNG.random((8, 8, 8, 3)), "numbers": RNG.random((8, 4))}
  for kinds in (outputs, dict(zip(("mask", "kind"), outputs, strict=True))):
    model = keras.Model({"image": image, "numbers": numbers}, kinds)
    student = quantization.quantize(model, "w8a8", calibration_data=data)
    deploy.to_tflite(student, path)  # Raises for a tensor that is not an integer.
    ends = _details(path)
    assert [sorted(side) for side in ends] == [["image", "numbers"], ["kind", "mask"]]
    assert {dtype for side in ends for dtype, _ in side.values()} == {np.int8}
    assert ends[1]["mask"][1] == [1, 6, 6, 2] and deploy.read_metadata(path)["inputs"] == ["image", "numbers"]


@pytest.mark.usefixtures("no_trial_conversion")
@pytest.mark.parametrize("integers", [False, True])
def test_indices_keep_their_type_and_open_sizes_are_given(integers, tmp_path):
  path = str(tmp_path / "a.tflite")
  ids = keras.Input((None,), dtype="int32", name="ids")
  model = keras.Model(ids, layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(ids))))
  tokens = RNG.integers(0, 9, (8, 7)).astype(np.int32)
  data = tokens if integers else None
  for shapes in ((7,), [(7,)], {"ids": (7,)}):
    deploy.to_tflite(model, path, input_shapes=shapes, representative_data=data)
    assert _details(path) == [
      {"ids": (np.int32, [1, 7])}, {"logits": (np.int8 if integers else np.float32, [1, 2])}
    ]  # fmt: skip
  expected = model(tokens).numpy()
  np.testing.assert_allclose(run(interpreter(path), tokens), expected, atol=0.02 if integers else 1e-6)
  with pytest.raises(ValueError, match="the file takes integers of type int32 as 'ids'; the data set has other"):
    run(interpreter(path), tokens + 0.5)
  if integers:
    with pytest.raises(
      ValueError, match=r"representative_data has shape \(6,\) for input 'ids', and input_shapes \(7,"
    ):
      deploy.to_tflite(model, path, input_shapes=(7,), representative_data=tokens[:, :6])
  for shapes, words in (
    (None, r"needs fixed sizes: pass input_shapes, such as {'ids': \(32,\)}"),
    ((7, 1), r"input_shapes has \(7, 1\) for input 'ids', which has shape \(None,\) without the batch"),
    ({"words": (7,)}, "input_shapes names words; the inputs are ids"),
    ([(7,), (7,)], "tuples of positive integers"),
    ((0,), "tuples of positive integers"),
  ):
    with pytest.raises(ValueError, match=words):
      deploy.to_tflite(model, path, input_shapes=shapes)


@pytest.mark.usefixtures("no_trial_conversion")
def test_sizes_of_images_are_given_for_trained_and_for_float_students(tmp_path):
  path = str(tmp_path / "a.tflite")
  x = inputs = keras.Input((None, None, 3))
  for layer in (layers.Conv2D(4, 3, padding="same", activation="relu"), layers.Conv2D(2, 1)):
    x = layer(x)
  model = keras.Model(inputs, x)
  images = RNG.random((4, 8, 12, 3), np.float32)
  for student in (model, quantization.quantize(model, "w8a8", calibration_data=images)):
    deploy.to_tflite(student, path, input_shapes=(8, 12, 3))
    expected = student(images).numpy()
    np.testing.assert_allclose(run(interpreter(path), images), expected, atol=1e-5 if student is model else 0.05)


@pytest.mark.parametrize("dtype, low", [("uint8", 0), ("int8", -128)])
def test_eight_bit_pixels_enter_an_integer_file_without_a_float(dtype, low, tmp_path):
  path = str(tmp_path / "a.tflite")
  inputs = keras.Input((8, 8, 3), dtype=dtype, name="pixels")
  x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(inputs))
  model = keras.Model(inputs, layers.Dense(3, name="scores")(layers.Flatten()(x)))
  pixels = RNG.integers(low, low + 256, (8, 8, 8, 3)).astype(dtype)
  deploy.to_tflite(model, path, representative_data=pixels)  # Raises for a float tensor.
  assert _details(path)[0] == {"pixels": (np.dtype(dtype), [1, 8, 8, 3])}
  opened, expected = interpreter(path), model(pixels).numpy()
  step = opened.get_output_details()[0]["quantization"][0]
  assert np.abs(run(opened, pixels) - expected).max() <= 3 * step
  with open(path, "rb") as file:
    assert not conversion.float_tensors(file.read(), None)


def _sizes(content):
  opened = Interpreter(model_content=content)
  return sorted(d["shape"][-1] for d in opened.get_input_details())


@pytest.mark.end_to_end
def test_the_result_of_an_interrupted_job_is_not_returned_for_the_next(tmp_path, monkeypatch):
  """Output of other modules and inputs called "file" do not disturb the exchange with the process."""
  a, b = keras.Input((2,), name="file"), keras.Input((5,), name="b")
  model = keras.Model([a, b], layers.Dense(2)(layers.Concatenate()([a, b])))
  examples = [RNG.random((4, size), np.float32) for size in (2, 5)]
  (tmp_path / "sitecustomize.py").write_text("print('hello')")
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  process = conversion._PROCESS
  process.stop()
  assert _sizes(conversion.convert(model, io="int8", examples=examples)) == [2, 5]

  def interrupted(directory):
    process._process.stdin.write(json.dumps(directory) + "\n")
    process._process.stdin.flush()
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(process, "_ask", interrupted)
    conversion.convert(model)
  assert _sizes(conversion.convert(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))) == [3]


def test_a_python_that_does_not_start_is_named(monkeypatch):
  monkeypatch.setattr(conversion, "_PROCESS", conversion._Process())
  monkeypatch.setattr("sys.executable", "/nowhere/python")
  with pytest.raises(RuntimeError, match="'/nowhere/python' does not start .*: set it to the path of a Python"):
    conversion.convert(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))


def test_models_and_data_that_cannot_be_exported_are_refused(tmp_path):
  path = str(tmp_path / "a.tflite")

  class Own(keras.Model):
    def call(self, inputs):
      return inputs

  with pytest.raises(TypeError, match="functional or Sequential model with an Input; got Own"):
    deploy.to_tflite(Own(), path)
  mixed = keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype="mixed_float16", name="half")])
  outer = keras.Input((3,))
  for model in (mixed, keras.Model(outer, mixed(outer))):
    with pytest.raises(ValueError, match="computes in float16 .*half.* under the float32 policy") as error:
      deploy.to_tflite(model, path)
    assert "\n" not in str(error.value)
  plain = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
  with pytest.raises(ValueError, match="representative_data yielded no batch"):
    deploy.to_tflite(plain, path, representative_data=np.zeros([0, 3]))
  with pytest.raises(ValueError, match="values that are not finite"):
    deploy.to_tflite(plain, path, representative_data=np.full([4, 3], np.nan))
  with pytest.raises(TypeError, match="labels must be a list of names.*got 'ab'"):
    deploy.to_tflite(plain, path, labels="ab")
  with pytest.raises(ValueError, match=r"needs fixed sizes: pass input_shapes, such as .* \(32, 32, 3\)"):
    deploy.to_tflite(keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 1)]), path)
  inputs = keras.Input((4,))
  odd = keras.Model(inputs, layers.Lambda(lambda x: tf.strings.length(tf.strings.as_string(x)))(inputs))
  with pytest.raises(ValueError, match=r"TFLite has no operation for tf.\w+.* Log: \S+$"):
    deploy.to_tflite(odd, path)
  assert not list(tmp_path.iterdir())


def test_a_float32_student_is_quantized_under_a_mixed_policy(tmp_path):
  model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.ReLU(), layers.Dense(2)])
  keras.mixed_precision.set_global_policy("mixed_float16")
  try:
    student = quantization.quantize(model, "w8a8", calibration_data=RNG.random((8, 3)))
    assert keras.mixed_precision.global_policy().name == "mixed_float16"
    deploy.to_tflite(student, str(tmp_path / "a.tflite"))
  finally:
    keras.mixed_precision.set_global_policy("float32")
