"""Teachers from TFLite files: types, batch sizes, names, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.losses import references
from tfkd import deploy, objectives, teachers

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(17, 6)).astype(np.float32)


def _dense(units=3):
  inputs = keras.Input((6,))
  return keras.Model(inputs, layers.Dense(units, name="logits")(layers.Dense(5, "relu", name="hidden")(inputs)))


def _heads():
  values, ids = keras.Input((6,), name="values"), keras.Input((2,), dtype="int32", name="ids")
  x = layers.Concatenate()([values, layers.Flatten()(layers.Embedding(10, 3, name="table")(ids))])
  outputs = {name: layers.Dense(units, name=name)(x) for name, units in (("cls", 3), ("embedding", 5))}
  return keras.Model({"values": values, "ids": ids}, outputs)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """(model, path) by kind of file."""
  directory = tmp_path_factory.mktemp("files")
  model, heads = _dense(), _heads()
  paths = {kind: directory / f"{kind}.tflite" for kind in ("fixed", "int8", "any size", "heads")}
  deploy.to_tflite(model, paths["fixed"])
  deploy.to_tflite(model, paths["int8"], representative_data=X)
  paths["any size"].write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
  deploy.to_tflite(heads, paths["heads"])
  return {kind: (heads if kind == "heads" else model, path) for kind, path in paths.items()}


@pytest.mark.parametrize("kind", ["fixed", "int8", "any size"])
def test_outputs_equal_the_models_in_batches_of_every_size(files, kind):
  model, path = files[kind]
  teacher = teachers.tflite(path)
  expected, logits = model(X).numpy(), teacher(X).outputs
  assert logits.dtype == tf.float32
  if kind == "int8":  # Dequantized: near the model, and equal to the file as it is evaluated.
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()
    expected = deploy.logits(path, tf.data.Dataset.from_tensor_slices((X, np.zeros(17, int))).batch(17))[0]
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
  in_graph = tf.function(lambda x: teacher(x).outputs, input_signature=[tf.TensorSpec([None, 6])])
  assert in_graph.get_concrete_function().output_shapes.as_list() == [None, 3]
  for size in (0, 1, 5, 2):
    np.testing.assert_allclose(in_graph(X[:size]), expected[:size], rtol=1e-5, atol=1e-5)


def test_several_inputs_and_outputs_go_by_name_and_outputs_are_features(files):
  model, path = files["heads"]
  batch = {"values": X, "ids": RNG.integers(0, 10, (17, 2))}  # int64: the file's are int32.
  teacher = teachers.tflite(path)
  for name, output in teacher(batch).outputs.items():
    np.testing.assert_allclose(output, model(batch)[name], rtol=1e-5, atol=1e-5)
  by_order = teachers.tflite(path, preprocess=lambda pair: {"values": pair[0], "ids": pair[1]})
  np.testing.assert_allclose(by_order((X, batch["ids"])).outputs["cls"], model(batch)["cls"], rtol=1e-5, atol=1e-5)
  terms = [objectives.SoftTargets(2.0, output="cls"), objectives.Hint("embedding", "hidden", weight=1.0)]
  student = _dense()
  distiller = tfkd.Distiller(teachers.tflite(path, preprocess=lambda x: {**batch, "values": x}), student, terms)
  assert distiller.objectives[1].built
  distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  ours, features = tfkd.taps.Reader(student, ["hidden"])(X)
  logs = distiller.evaluate(X, np.zeros(17, int), batch_size=17, verbose=0, return_dict=True)
  expected = {name: output.numpy() for name, output in model(batch).items()}
  kl = 4 * references.soft_target_kl(expected["cls"], ours.numpy(), 2.0).mean()
  assert logs["soft_targets"] == pytest.approx(kl, rel=1e-4)
  hint = references.hint(expected["embedding"], features["hidden"].numpy()).mean()
  assert logs["hint"] == pytest.approx(hint, rel=1e-4)
  with pytest.raises(ValueError, match="no output other, which objectives read: its outputs are cls, embedding"):
    tfkd.Distiller(teacher, student, objectives.Hint("other", "hidden"))


def test_is_preprocessed_once_cached_and_part_of_an_ensemble(files, tmp_path):
  model, path = files["fixed"]
  teacher = teachers.tflite(path, teachers.Preprocessing(None, 2.0))
  np.testing.assert_allclose(teacher(X).outputs, model(2 * X), rtol=1e-5, atol=1e-5)
  in_order = tfkd.data.batches(X, None, 5)
  cached = teachers.cache(teachers.Ensemble([teacher, model]), in_order, tmp_path / "c")
  np.testing.assert_allclose(cached.outputs, (model(2 * X) + model(X)) / 2, rtol=1e-4, atol=1e-5)
  other = tmp_path / "other.tflite"
  deploy.to_tflite(_dense(), other)
  with pytest.raises(ValueError, match="another teacher"):
    teachers.cache(teachers.Ensemble([teachers.tflite(other), model]), in_order, tmp_path / "c")


@pytest.mark.parametrize(
  "kind, batch, words",
  [
    ("fixed", X[:, :4], r"input images .* has shape \[6\] for each example, and the batch has shape \(17, 4\)"),
    ("int8", np.uint8(X), "stores floats as int8, and the batch has uint8: pass preprocess"),
    ("fixed", np.array([["a"] * 6]), "type float32, and the batch has string"),
    ("heads", (X, X), "reads .*, and the batch is 2 tensors: pass preprocess"),
    ("heads", {"values": X}, "the batch is a dict of values: pass preprocess"),
    ("heads", {"values": X, "ids": X[:, :2]}, "input ids .* has type int32, and the batch has float32"),
  ],
)
def test_batches_that_do_not_fit_are_refused(files, kind, batch, words):
  with pytest.raises(ValueError, match=words):
    teachers.tflite(files[kind][1])(batch)


def test_files_that_cannot_be_run_are_refused(files, tmp_path):
  with pytest.raises(FileNotFoundError, match="no TFLite file at"):
    teachers.tflite(tmp_path / "none.tflite")
  (tmp_path / "text.tflite").write_text("no model")
  with pytest.raises(ValueError, match="not a TFLite file that LiteRT can run"):
    teachers.tflite(tmp_path / "text.tflite")
  with pytest.raises(ValueError, match="no signature 'other': set signature to one of serving_default"):
    teachers.tflite(files["fixed"][1], signature="other")
