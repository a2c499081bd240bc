"""Files are measured by their task or by metrics of Keras, with labels and weights as `fit` takes them."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy

pytestmark = pytest.mark.usefixtures("no_trial_conversion")
layers = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.random((10, 6, 6, 3), np.float32)
WEIGHTS = np.arange(10, dtype=np.float32)


def _batches(*arrays):
  return tf.data.Dataset.from_tensor_slices(arrays).batch(4)


def _written(tmp_path, model, **options):
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(model, path, **options)
  return path


def _dense(outputs, activation=None):
  return keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(outputs, activation)])


def _softmax(x):
  exponentials = np.exp(x - x.max(-1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_classes_are_measured_with_every_form_of_labels(activation, tmp_path):
  model = _dense(3, activation)
  path = _written(tmp_path, model)
  assert deploy.read_metadata(path).get("task") == ("classes" if activation else None)
  scores = model(IMAGES).numpy().astype(np.float64)
  probabilities = scores if activation else _softmax(scores)
  labels = np.arange(10) % 3
  hits = scores.argmax(1) == labels
  losses = -np.log(probabilities[np.arange(10), labels])
  for given in (labels, labels[:, None]):
    found = deploy.evaluate(path, _batches(IMAGES, given))
    np.testing.assert_allclose([found["accuracy"], found["loss"]], [hits.mean(), losses.mean()], rtol=1e-5)
  deploy.write_metadata(path, task="classes")
  for given in (labels, np.eye(3)[labels]):
    found = deploy.evaluate(path, _batches(IMAGES, given, WEIGHTS), model)
    expected = [np.average(hits, weights=WEIGHTS), np.average(losses, weights=WEIGHTS)]
    np.testing.assert_allclose([found["accuracy"], found["loss"]], expected, rtol=1e-5)
    assert found["agreement"] == 1 and found["worst_difference"] < 1e-4 and found["images"] == 10


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_labels_that_do_not_exclude_each_other(activation, tmp_path):
  model = _dense(4, activation)
  path = _written(tmp_path, model, task="multi-label")
  labels = RNG.integers(0, 2, (10, 4))
  scores = model(IMAGES).numpy().astype(np.float64)
  probabilities = scores if activation else 1 / (1 + np.exp(-scores))
  hits = (probabilities > 0.5) == labels
  losses = -np.log(np.where(labels, probabilities, 1 - probabilities))
  found = deploy.evaluate(path, _batches(IMAGES, labels, WEIGHTS), model)
  expected = {
    "binary_accuracy": np.average(hits.mean(1), weights=WEIGHTS), "loss": np.average(losses.mean(1), weights=WEIGHTS),
    "student_binary_accuracy": np.average(hits.mean(1), weights=WEIGHTS), "agreement": 1,
  }  # fmt: skip
  np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-5)
  assert "accuracy" not in found
  by_name = deploy.evaluate(path, _batches(IMAGES, labels, WEIGHTS), metrics=["accuracy", "crossentropy"])
  np.testing.assert_allclose(
    [by_name["accuracy"], by_name["crossentropy"]], [expected["binary_accuracy"], expected["loss"]], rtol=1e-5
  )


def test_maps_of_classes_leave_out_elements_of_weight_zero(tmp_path):
  model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(3, 1)])
  path = _written(tmp_path, model)
  labels = RNG.integers(0, 3, (10, 6, 6))
  weights = RNG.integers(0, 2, (10, 6, 6)).astype(np.float32)
  scores = model(IMAGES).numpy().astype(np.float64)
  found = deploy.evaluate(path, _batches(IMAGES, np.where(weights == 0, 255, labels), weights))
  chosen, valid = scores.argmax(-1), weights != 0
  losses = -np.log(np.take_along_axis(_softmax(scores), labels[..., None], -1))[..., 0]
  unions = [((chosen == c) | (labels == c))[valid].sum() for c in range(3)]
  ious = [((chosen == c) & (labels == c))[valid].sum() / union for c, union in enumerate(unions) if union]
  expected = {
    "accuracy": (chosen == labels)[valid].mean(), "loss": losses[valid].mean(), "mean_iou": np.mean(ious)
  }  # fmt: skip
  np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-5)
  with pytest.raises(ValueError, match=r"class indices from 0 to 2; the data set has 255: .*weight of zero"):
    deploy.evaluate(path, _batches(IMAGES, np.full([10, 6, 6], 255)))
  one_hot = np.eye(3)[labels]
  with pytest.raises(ValueError, match="the task of output 'logits' .*is not known"):
    deploy.evaluate(path, _batches(IMAGES, one_hot))
  deploy.write_metadata(path, task="per-element classes")
  assert deploy.evaluate(path, _batches(IMAGES, one_hot, weights)) == {
    **found,
    "bytes": pytest.approx(found["bytes"], abs=99),
  }


def test_numbers_are_measured_by_their_errors_and_never_by_an_accuracy(tmp_path):
  model = _dense(1)
  path = _written(tmp_path, model, task="regression", metadata={"mean": 0.0, "std": 1.0})
  labels = RNG.normal(size=10)
  errors = model(IMAGES).numpy()[:, 0].astype(np.float64) - labels
  for given in (labels, labels[:, None]):
    found = deploy.evaluate(path, _batches(IMAGES, given, WEIGHTS), model)
    expected = [np.average(np.abs(errors), weights=WEIGHTS), np.sqrt(np.average(errors**2, weights=WEIGHTS))]
    np.testing.assert_allclose([found["mean_absolute_error"], found["root_mean_squared_error"]], expected, rtol=1e-5)
    np.testing.assert_allclose(found["student_root_mean_squared_error"], expected[1], rtol=1e-5)
    assert not any("accuracy" in name or name == "agreement" for name in found)
  found = deploy.evaluate(
    path, _batches(IMAGES, labels, WEIGHTS), metrics=["mae", keras.metrics.MeanSquaredError("mse")]
  )
  np.testing.assert_allclose(found["mae"], expected[0], rtol=1e-5)
  np.testing.assert_allclose(found["mse"], expected[1] ** 2, rtol=1e-5)
  with pytest.raises(ValueError, match="metrics has 'accuracy' for output 'logits', whose task is regression"):
    deploy.evaluate(path, _batches(IMAGES, labels), metrics=["accuracy"])


def test_metrics_read_what_compile_gives_them(tmp_path):
  model = _dense(4, "sigmoid")
  path = _written(tmp_path, model)
  labels = RNG.integers(0, 2, (10, 4))
  metrics = ["binary_accuracy", "AUC", keras.metrics.Precision(name="precision"), keras.losses.mean_squared_error]
  found = deploy.evaluate(path, _batches(IMAGES, labels, WEIGHTS), metrics=metrics)
  own = [
    "binary_accuracy",
    keras.metrics.AUC(name="auc"),
    keras.metrics.Precision(name="precision"),
    "mean_squared_error",
  ]
  model.compile(weighted_metrics=own)
  expected = model.evaluate(_batches(IMAGES, labels, WEIGHTS), return_dict=True, verbose=0)
  for name in ("binary_accuracy", "auc", "precision", "mean_squared_error"):
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
  assert found["images"] == 10


def test_metrics_that_would_be_wrong_are_refused(tmp_path):
  model = _dense(4)
  path = _written(tmp_path, model)
  labels = RNG.integers(0, 2, (10, 4))
  for metric in ("binary_accuracy", keras.metrics.AUC(), keras.metrics.Recall(), keras.metrics.BinaryCrossentropy()):
    with pytest.raises(ValueError, match="expects probabilities, and output 'logits' of the file has values from -"):
      deploy.evaluate(path, _batches(10 * (IMAGES - 0.5), labels), metrics=[metric])
  for metric in (keras.metrics.BinaryAccuracy(threshold=0.0), keras.metrics.AUC(from_logits=True)):
    deploy.evaluate(path, _batches(IMAGES, labels), metrics=metric)
  for metrics, error, words in (
    (["accuracy"], ValueError, "whose task is not known"),
    (["fast"], ValueError, "'fast', which is no metric of tf_keras"),
    ([3], TypeError, "metrics must be metrics of tf_keras, their names or functions; got int"),
    (["mse", "mse"], ValueError, "the same name twice"),
    ({"other": ["mse"]}, ValueError, "metrics names outputs other; the file has logits"),
  ):
    with pytest.raises(error, match=words):
      deploy.evaluate(path, _batches(IMAGES, labels), metrics=metrics)
  with pytest.raises(ValueError, match=r"outputs of shape \(4, 4\) with labels of shape \(4, 1\)"):
    deploy.evaluate(path, _batches(IMAGES, labels[:, :1]), metrics=["mse"])
  softmax = _written(tmp_path, _dense(4, "softmax"))
  with pytest.raises(ValueError, match="ends in softmax, and metric .* has from_logits=True"):
    loss = keras.metrics.SparseCategoricalCrossentropy(from_logits=True)
    deploy.evaluate(softmax, _batches(IMAGES, labels[:, 0]), metrics=[loss])


def test_tasks_that_an_output_cannot_have_are_refused(tmp_path):
  for model, task, words in (
    (_dense(3), "class", "task 'class' is not known: did you mean 'classes'"),
    (_dense(1), "classes", r"needs an output of shape \[1, classes\] .*has \[1, 1\]. .*task='multi-label'"),
    (_dense(3), "per-element classes", "needs an output of shape"),
    (_dense(3), {"other": "classes"}, "task names outputs other; the student has dense"),
  ):
    with pytest.raises(ValueError, match=words):
      deploy.to_tflite(model, str(tmp_path / "a.tflite"), task=task)
  path = _written(tmp_path, _dense(3))
  deploy.write_metadata(path, task="per-element classes")
  with pytest.raises(ValueError, match="needs an output of shape"):
    deploy.evaluate(path, _batches(IMAGES, np.zeros(10)))
  for labels, weights, words in (
    (np.zeros(10), np.ones([10, 2]), r"sample weights have shape \(4, 2\); expected \[batch\]"),
    (np.full(10, 3), np.ones(10), "class indices from 0 to 2"),
    (np.zeros(10), -np.ones(10), "sample weights must be finite and not negative"),
  ):
    deploy.write_metadata(path, task="classes")
    with pytest.raises(ValueError, match=words):
      deploy.evaluate(path, _batches(IMAGES, labels, weights))


def test_several_outputs_are_measured_by_name(tmp_path):
  ids, image = keras.Input((5,), dtype="int32", name="ids"), keras.Input((6, 6, 3), name="image")
  words = layers.GlobalAveragePooling1D()(layers.Embedding(7, 3)(ids))
  x = layers.Concatenate()([words, layers.Flatten()(image)])
  outputs = {"z_kind": layers.Dense(3)(x), "a_mask": layers.Conv2D(2, 1)(image), "count": layers.Dense(1)(x)}
  by_dict = keras.Model({"tokens": ids, "picture": image}, outputs)
  by_list = keras.Model([ids, image], [outputs["z_kind"], outputs["a_mask"], outputs["count"]])
  tokens = RNG.integers(0, 7, (10, 5))
  kind, mask, count = RNG.integers(0, 3, 10), RNG.integers(0, 2, (10, 6, 6)), RNG.normal(size=(10, 1))
  scores = {name: values.numpy() for name, values in by_dict({"tokens": tokens, "picture": IMAGES}).items()}
  accuracy = (scores["z_kind"].argmax(-1) == kind).mean(), (scores["a_mask"].argmax(-1) == mask).mean()
  error = np.abs(scores["count"] - count).mean()
  targets = {"z_kind": kind, "a_mask": mask, "count": count}
  tasks = {"z_kind": "classes", "count": "regression"}
  path = _written(tmp_path, by_dict, task=tasks)
  fields = deploy.read_metadata(path)
  assert fields["task"] == tasks and fields["outputs"] == sorted(targets) and fields["inputs"] == ["picture", "tokens"]
  dataset = _batches({"tokens": tokens, "picture": IMAGES}, targets)
  found = deploy.evaluate(path, dataset, by_dict)
  values = [found["z_kind_accuracy"], found["a_mask_accuracy"], found["count_mean_absolute_error"]]
  np.testing.assert_allclose(values, [*accuracy, error], rtol=1e-5)
  assert found["a_mask_agreement"] == 1 and found["count_worst_difference"] < 1e-4
  outputs, labels = deploy.logits(path, dataset)
  np.testing.assert_allclose(outputs["a_mask"], scores["a_mask"], atol=1e-5)
  np.testing.assert_array_equal(labels["z_kind"], kind)
  weighted = _batches({"tokens": tokens, "picture": IMAGES}, targets, {"z_kind": WEIGHTS})
  found = deploy.evaluate(path, weighted, metrics={"z_kind": ["accuracy"]})
  expected = np.average(scores["z_kind"].argmax(-1) == kind, weights=WEIGHTS)
  assert found.keys() == {"z_kind_accuracy", "bytes", "images"} and found["z_kind_accuracy"] == pytest.approx(expected)
  with pytest.raises(ValueError, match="metrics of a file with several outputs must be a dict by name"):
    deploy.evaluate(path, dataset, metrics=["accuracy"])

  names = by_list.output_names
  path = _written(
    tmp_path, by_list, task=dict(zip(names, ["classes", "per-element classes", "regression"], strict=True))
  )
  found = deploy.evaluate(path, _batches((tokens, IMAGES), (kind, mask, count)), by_list)
  values = [found[f"{names[0]}_accuracy"], found[f"{names[1]}_accuracy"], found[f"{names[2]}_mean_absolute_error"]]
  np.testing.assert_allclose(values, [*accuracy, error], rtol=1e-5)
  (tmp_path / "other.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(by_list).convert())
  with pytest.raises(ValueError, match="the file does not tell the order of .*: give inputs as a dict by name"):
    deploy.evaluate(str(tmp_path / "other.tflite"), _batches((tokens, IMAGES), (kind, mask, count)))
  assert deploy.benchmark(path, rounds=2, calls=2)["median_ms"] > 0
