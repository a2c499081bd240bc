"""Sweeps of tasks other than classes of images: rows and files equal numpy's measurements of the saved students."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, teachers
from tfkd.objectives import BinarySoftTargets, MatchOutputs, SoftTargets
from tfkd.sweeps import FLOAT, ArrayData, PipelineData, StudentSpec, Sweep, SweepConfig
from tfkd.training import checkpoints

pytestmark = pytest.mark.usefixtures("run_eagerly")
_RNG = np.random.default_rng(0)
N, TRAIN = 60, 44
X = _RNG.normal(size=(N, 5)).astype(np.float32)
TOKENS = _RNG.integers(0, 7, (N, 6)).astype(np.int32)
TAGS = TOKENS % 3
LABELS = (X[:, :4] > 0).astype(np.int32)
AMOUNTS = (X[:, 0] * X[:, 1]).astype(np.float32)


def _layers(outputs, x):
  if isinstance(outputs, dict):
    return {name: keras.layers.Dense(size, name=f"head_{name}")(x) for name, size in outputs.items()}
  return keras.layers.Dense(outputs, name="logits")(x)


def network(outputs, input_shape, width=8):
  inputs = keras.Input(input_shape)
  x = keras.layers.Dense(width, activation="relu")(inputs)
  return keras.Model(inputs, _layers(outputs, x))


def tagger(outputs, input_shape, width=8):
  inputs = keras.Input(input_shape, dtype="int32")
  return keras.Model(inputs, _layers(outputs, keras.layers.Embedding(7, width)(inputs)))


def _split(*parts):
  """(train, test) of arrays or dicts of arrays."""
  return tuple(
    tuple(tf.nest.map_structure(lambda array, where=where: array[where], part) for part in parts)
    for where in (slice(TRAIN), slice(TRAIN, None))
  )


def _run(path, data, objectives, build=network, students=(), **options):
  config = {"teacher": build, "student": build, "epochs": 2, "teacher_epochs": 2, "batch_size": 16} | options
  sweep = Sweep(path, SweepConfig(**config), data)
  specs = [
    StudentSpec("tasks", "labels", FLOAT, export=True),
    StudentSpec("tasks", "distilled", FLOAT, objectives=objectives),
    *students,
  ]
  sweep.run(specs)
  return sweep, specs


def _log_softmax(logits):
  logits = logits.astype(np.float64)
  return (
    logits
    - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    - logits.max(-1, keepdims=True)
  )


def test_tags_of_tokens_count_by_their_weights(tmp_path):
  weights = (_RNG.random((N, 6)) < 0.7).astype(np.float32)
  padded = np.where(weights > 0, TAGS, -1)
  train, test = _split(TOKENS, padded, weights)
  data = ArrayData(train, test, ["a", "b", "c"], task="per-element classes")
  sweep, (labels, distilled) = _run(tmp_path, data, (SoftTargets(2.0),), tagger)
  for spec in (labels, distilled):
    (row,) = sweep.rows(spec)
    logits = sweep.predict(spec, "test")
    teacher = sweep.load_teacher().predict(test[0], verbose=0)
    chosen, (tags, weight) = logits.argmax(-1), (TAGS[TRAIN:], weights[TRAIN:])
    total = weight.sum()
    assert row["accuracy"] == pytest.approx(((chosen == tags) * weight).sum() / total, abs=1e-6)
    assert row["agreement"] == pytest.approx(((chosen == teacher.argmax(-1)) * weight).sum() / total, abs=1e-6)
    loss = -np.take_along_axis(_log_softmax(logits), tags[..., None], -1)[..., 0]
    assert row["loss"] == pytest.approx((loss * weight).sum() / weight.size, rel=1e-5)  # Keras divides by all elements.
    pairs = np.array([[((tags == i) & (chosen == j)) @ np.ones(6) @ np.ones(16) for j in range(3)] for i in range(3)])
    hits = np.array([[(((tags == i) & (chosen == j)) * weight).sum() for j in range(3)] for i in range(3)])
    assert pairs.sum() == weight.size
    ious = np.diag(hits) / (hits.sum(0) + hits.sum(1) - np.diag(hits))
    assert row["mean_iou"] == pytest.approx(ious.mean(), abs=1e-6)
  (row,) = sweep.rows(labels)
  assert row["tflite_accuracy"] == pytest.approx(row["accuracy"], abs=1e-6)
  assert row["tflite_mean_iou"] == pytest.approx(row["mean_iou"], abs=1e-6)
  fields = deploy.read_metadata(tmp_path / "students" / f"{labels.name}.tflite")
  assert (fields["task"], fields["labels"]) == ("per-element classes", ["a", "b", "c"])


def test_several_labels_of_an_example(tmp_path):
  train, test = _split(X, LABELS)
  data = ArrayData(train, test, list("abcd"), task="multi-label")
  quantized = StudentSpec("tasks", "distilled", "w8a8", objectives=(BinarySoftTargets(),))
  sweep, (labels, *_) = _run(tmp_path, data, (BinarySoftTargets(),), students=[quantized])
  for spec in (labels, quantized):
    (row,) = sweep.rows(spec)
    logits = sweep.predict(spec, "test").astype(np.float64)
    assert row["binary_accuracy"] == pytest.approx(((logits > 0) == test[1]).mean(), abs=1e-6)
    loss = np.maximum(logits, 0) - logits * test[1] + np.log1p(np.exp(-np.abs(logits)))
    assert row["loss"] == pytest.approx(loss.mean(), rel=1e-5)
    teacher = sweep.load_teacher().predict(test[0], verbose=0)
    assert row["agreement"] == pytest.approx(((logits > 0) == (teacher > 0)).mean(), abs=1e-6)
    assert "accuracy" not in row
  assert {"tflite_binary_accuracy", "tflite_loss", "tflite_bytes"} <= row.keys()


def test_a_number_for_each_example(tmp_path):
  data = ArrayData(*_split(X, AMOUNTS), ["amount"], task="regression", loss="huber")
  sweep, (labels, distilled) = _run(tmp_path, data, (MatchOutputs("huber"),))
  (row,) = sweep.rows(distilled)
  errors = sweep.predict(distilled, "test")[:, 0].astype(np.float64) - AMOUNTS[TRAIN:]
  assert row["mean_absolute_error"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
  assert row["root_mean_squared_error"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)
  huber = np.where(np.abs(errors) <= 1, errors**2 / 2, np.abs(errors) - 0.5)
  assert row["loss"] == pytest.approx(huber.mean(), rel=1e-5)
  assert "agreement" not in row and "accuracy" not in row
  (row,) = sweep.rows(labels)
  assert row["tflite_root_mean_squared_error"] == pytest.approx(row["root_mean_squared_error"], rel=1e-5)


BOTH = {"kind": "classes", "amount": "regression"}
NAMES = {"kind": ["x", "y", "z"], "amount": ["amount"]}
KINDS = X[:, :3].argmax(1)


def _both(**options):
  train, test = _split(X, {"kind": KINDS, "amount": AMOUNTS})
  return ArrayData(train, test, NAMES, task=BOTH, **options)


def test_several_outputs_are_measured_by_their_tasks(tmp_path):
  objectives = (SoftTargets(2.0, output="kind"), MatchOutputs(output="amount"))
  sweep, (labels, distilled) = _run(tmp_path, _both(), objectives)
  for spec in (labels, distilled):
    (row,) = sweep.rows(spec)
    found, teacher = sweep.predict(spec, "test"), sweep.load_teacher().predict(X[TRAIN:], verbose=0)
    chosen = found["kind"].argmax(1)
    assert row["kind_accuracy"] == pytest.approx((chosen == KINDS[TRAIN:]).mean(), abs=1e-6)
    assert row["kind_agreement"] == pytest.approx((chosen == teacher["kind"].argmax(1)).mean(), abs=1e-6)
    errors = found["amount"][:, 0].astype(np.float64) - AMOUNTS[TRAIN:]
    assert row["amount_mean_absolute_error"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    cross_entropy = -np.take_along_axis(_log_softmax(found["kind"]), KINDS[TRAIN:, None], -1).mean()
    assert row["loss"] == pytest.approx(cross_entropy + (errors**2).mean(), rel=1e-5)
  (row,) = sweep.rows(labels)
  assert row["tflite_kind_accuracy"] == pytest.approx(row["kind_accuracy"], abs=1e-6)
  assert row["tflite_amount_mean_absolute_error"] == pytest.approx(row["amount_mean_absolute_error"], rel=1e-4)
  fields = deploy.read_metadata(tmp_path / "students" / f"{labels.name}.tflite")
  assert fields["task"] == BOTH and fields["labels"] == NAMES


def test_a_student_learns_from_a_function_on_examples_without_labels(tmp_path):
  factor = 5

  def function(inputs):
    return {"kind": factor * inputs[:, :3], "amount": inputs[:, :1] * inputs[:, 1:2]}

  def oracle(outputs, input_shape):
    return function

  more = _RNG.normal(size=(100, 5)).astype(np.float32)
  unlabelled = StudentSpec(
    "tasks", "unlabelled", FLOAT, 0, (SoftTargets(output="kind"), MatchOutputs(output="amount")), 0.0, split="more"
  )
  sweep, _ = _run(
    tmp_path,
    _both(splits={"more": (more, None)}),
    (SoftTargets(2.0, output="kind"),),
    teacher=oracle,
    teacher_epochs=0,
    students=[unlabelled],
  )
  (teacher,) = sweep.results.find(role="teacher")
  assert teacher["kind_accuracy"] == 1.0 and teacher["amount_root_mean_squared_error"] == pytest.approx(0, abs=1e-6)
  assert teacher["loss"] == pytest.approx(-_log_softmax(5 * X[TRAIN:, :3]).max(1).mean(), rel=1e-5)
  (row,) = sweep.rows(unlabelled)
  assert (row["train_images"], row["choices"]) == (100, {"split": "more"})
  # What has no labels is not measured on them.
  assert not {"kind_accuracy", "head_kind_accuracy", "hard_loss"} & row["history"].keys()
  assert len(row["history"]["loss"]) == len(row["history"]["val_hard_loss"]) == 2
  cached = teachers.CachedTeacher(tmp_path / "teacher" / "outputs" / "more").outputs
  np.testing.assert_allclose(cached["kind"], 5 * more[:, :3], rtol=1e-6)
  again = Sweep(tmp_path, sweep._trainer.config, _both(splits={"more": (more, None)}))
  again.run([unlabelled])
  assert again.results.rows() == sweep.results.rows()
  factor = 4  # Another function of the same name.
  with pytest.raises(ValueError, match="has outputs of another teacher or data"):
    Sweep(tmp_path, sweep._trainer.config, _both(splits={"more": (more, None)})).run([unlabelled])


def test_a_killed_student_of_examples_without_labels_resumes(tmp_path, monkeypatch, caplog):
  unlabelled = StudentSpec("tasks", "unlabelled", objectives=(SoftTargets(),), hard_loss_weight=0.0, split="more")
  data = ArrayData(*_split(X, KINDS), list("abc"), splits={"more": (X[::-1].copy(), None)})
  whole, _ = _run(tmp_path / "whole", data, (), students=[unlabelled])
  with monkeypatch.context() as patch:
    original = checkpoints.Checkpoints.on_train_batch_end

    def kill(self, batch, logs=None):
      original(self, batch, logs)
      if self._directory.endswith(unlabelled.name) and batch == 1:
        raise KeyboardInterrupt

    patch.setattr(checkpoints.Checkpoints, "on_train_batch_end", kill)
    with pytest.raises(KeyboardInterrupt):
      _run(tmp_path / "killed", data, (), students=[unlabelled], checkpoint_steps=1)
  resumed, _ = _run(tmp_path / "killed", data, (), students=[unlabelled], checkpoint_steps=1)
  assert "damaged" not in caplog.text
  for a, b in zip(resumed.load(unlabelled).get_weights(), whole.load(unlabelled).get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)


def test_pipelines_of_tags(tmp_path):
  def batches(where, seed=None):
    data = tf.data.Dataset.from_tensor_slices((TOKENS[where], TAGS[where]))
    return (data if seed is None else data.shuffle(N, seed=seed)).batch(16)

  data = PipelineData(
    lambda seed: batches(slice(TRAIN), seed),
    lambda: batches(slice(TRAIN, None)),
    ["a", "b", "c"],
    (6,),
    TRAIN,
    task="per-element classes",
  )
  sweep, (labels, _) = _run(tmp_path, data, (SoftTargets(2.0),), tagger)
  (row,) = sweep.rows(labels)
  chosen, teacher = sweep.predict(labels, "test").argmax(-1), sweep.load_teacher().predict(TOKENS[TRAIN:], verbose=0)
  assert row["accuracy"] == pytest.approx((chosen == TAGS[TRAIN:]).mean(), abs=1e-6)
  assert row["agreement"] == pytest.approx((chosen == teacher.argmax(-1)).mean(), abs=1e-6)


@pytest.mark.parametrize(
  "make, words",
  [
    (lambda: ArrayData(*_split(X, LABELS), list("abcd"), task="multilabel"), "did you mean 'multi-label'"),
    (lambda: ArrayData(*_split(X, LABELS), list("abc"), task="multi-label"), r"labels \[n, ..., 3\].*shape \[44, 4\]"),
    (lambda: ArrayData(*_split(X, LABELS - 1), list("abcd"), task="multi-label"), "labels from 0 to 1.*got -1 to 0"),
    (lambda: ArrayData(*_split(X, AMOUNTS / 0), ["a"], task="regression"), "finite"),
    (lambda: ArrayData(*_split(TOKENS, TAGS), list("ab"), task="per-element classes"), r"in \[0, 1\].*got 2: give"),
    (lambda: ArrayData(*_split(TOKENS, TAGS), list("abc")), r"integer labels \[n\].*int32 labels of shape \[44, 6\]"),
    (lambda: ArrayData(*_split(TOKENS, TAGS, TAGS[:, :2]), list("abc"), task="per-element classes"), "sample weights"),
    (lambda: ArrayData((X, None), (X, KINDS), list("abc")), "train must have labels: put inputs without labels into"),
    (lambda: ArrayData(*_split(X, KINDS), NAMES, task=BOTH), "train must have a dict of labels by output, amount"),
    (lambda: ArrayData(*_split(X, {"kind": KINDS}), NAMES, task=BOTH), "by output, amount, kind; got kind"),
    (lambda: ArrayData(*_split(X, KINDS), ["a"]), "must name 2 or more"),
  ],
)  # fmt: skip
def test_data_that_do_not_fit_their_task_raise(make, words):
  with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(ValueError, match=words):
    make()


def test_networks_students_and_options_that_do_not_fit_raise(tmp_path):
  data = ArrayData(*_split(TOKENS, TAGS), list("abc"), task="per-element classes")
  with pytest.raises(ValueError, match=r"returns amount .*1. and kind .*3.; the data set needs one output .*3."):
    _run(tmp_path, data, (), lambda outputs, shape: network({"amount": 1, "kind": 3}, shape))
  with pytest.raises(ValueError, match="label_smoothing is for single class labels"):
    _run(tmp_path, data, (), tagger, label_smoothing=0.1)
  with pytest.raises(ValueError, match="svhn_cnn returns one vector for each example"):
    _run(tmp_path, data, (), teacher="svhn_cnn", student=tagger)
  with pytest.raises(
    ValueError, match="teacher .* returned a builtin.*; expected a tf_keras model, or set teacher_epo"
  ):
    _run(tmp_path, data, (), teacher=lambda outputs, shape: abs, student=tagger)
  with pytest.raises(ValueError, match="teacher_head_only is for single class labels"):
    _run(tmp_path, data, (), tagger, teacher_head_only=True, teacher_checkpoint="weights.pth")
  more = ArrayData(*_split(X, KINDS), list("abc"), splits={"more": (X, None)})
  wrong = StudentSpec("tasks", "more", split="more")
  with pytest.raises(ValueError, match="'more', which has no labels, with hard_loss_weight=1.0: set it to 0"):
    _run(tmp_path / "more", more, (), students=[wrong])
  with pytest.raises(ValueError, match="no split 'most'"):
    _run(tmp_path / "more", more, (), students=[wrong._replace(split="most")])
