"""Sweeps of a user's own data sets and networks."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from experiments.benchmarks.sweep_steps import step_seconds
from tfkd import deploy, reporting
from tfkd.objectives import SoftTargets
from tfkd.preprocessing import HALVES
from tfkd.sweeps import FLOAT, ArrayData, PipelineData, StudentSpec, Sweep, SweepConfig, Workspace, networks
from tfkd.sweeps.export import file_metadata
from tfkd.training import checkpoints

pytestmark = pytest.mark.usefixtures("run_eagerly")
CLASSES = ("left", "right", "middle")
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(50, 6)).astype(np.float32)
Y = X[:, :3].argmax(axis=1)


class Killed(Exception):
  pass


def network(num_classes, input_shape, width=8):
  return keras.Sequential(
    [
      keras.Input(input_shape, name="inputs"),
      keras.layers.Dense(width, activation="relu", name="hidden"),
      keras.layers.Dense(num_classes, name="logits"),
    ],
    name="network",  # Keras' own names are numbered, and their length is part of the size of a file.
  )


def teacher_network(num_classes, input_shape):
  return network(num_classes, input_shape, 32)


def _arrays(**options):
  return ArrayData((X[:40], Y[:40]), (X[40:], Y[40:]), CLASSES, **options)


def _pipelines(**options):
  def train(seed):
    return tf.data.Dataset.from_tensor_slices((X[:40], Y[:40])).shuffle(40, seed=seed).batch(16)

  def test():
    return tf.data.Dataset.from_tensor_slices((X[40:], Y[40:])).batch(10)

  return PipelineData(train, test, CLASSES, (6,), 40, **options)


def _sweep(workdir, source, **options):
  options = {
    "teacher": teacher_network,
    "student": network,
    "epochs": 2,
    "teacher_epochs": 2,
    "batch_size": 16,
  } | options
  return Sweep(workdir, SweepConfig(checkpoint_steps=1, **options), source)


STUDENTS = [
  StudentSpec("mine", "labels", FLOAT, 0),
  StudentSpec("mine", "labels", FLOAT, 1),
  StudentSpec("mine", "soft targets", FLOAT, 0, (SoftTargets(2.0),), temperature=2.0),
  StudentSpec("mine", "soft targets", "w8a8", 0, (SoftTargets(2.0),), temperature=2.0),
]


def _run_killed(monkeypatch, sweep, name, step):
  """Runs a sweep until a step of a student's training."""
  with monkeypatch.context() as patch:
    original = checkpoints.Checkpoints.on_train_batch_end

    def kill(self, batch, logs=None):
      original(self, batch, logs)
      if self._directory.endswith(name) and self.epoch * 3 + batch + 1 == step:
        raise Killed

    patch.setattr(checkpoints.Checkpoints, "on_train_batch_end", kill)
    with pytest.raises(Killed):
      sweep.run(STUDENTS)


@pytest.fixture(
  scope="module", params=[_arrays, pytest.param(_pipelines, marks=pytest.mark.end_to_end)], ids=["arrays", "pipelines"]
)
def whole(request, tmp_path_factory):
  """A data set, and an uninterrupted sweep of it."""
  sweep = _sweep(tmp_path_factory.mktemp("whole"), request.param())
  sweep.run(STUDENTS)
  return request.param, sweep


def test_killed_sweep_resumes_to_the_results_of_an_uninterrupted_one(whole, tmp_path, monkeypatch):
  source, expected = whole
  _run_killed(monkeypatch, _sweep(tmp_path, source()), "teacher", 4)
  _run_killed(monkeypatch, _sweep(tmp_path, source()), STUDENTS[2].name, 2)
  resumed = _sweep(tmp_path, source())
  assert len(resumed.results.rows()) == 3
  resumed.run(STUDENTS)
  timed = ("seconds", "images_per_second")
  rows, expected_rows = (
    [{name: value for name, value in row.items() if name not in timed} for row in sweep.results.rows()]
    for sweep in (resumed, expected)
  )
  assert rows == expected_rows
  for student in STUDENTS:
    for a, b in zip(resumed.load(student).get_weights(), expected.load(student).get_weights(), strict=True):
      np.testing.assert_array_equal(a, b)


def test_rows_contain_accuracies_on_the_given_test_set(whole):
  _, sweep = whole
  teacher, *rows = sweep.results.rows()
  assert teacher["config"]["teacher"] == "teacher_network" and teacher["dataset"] == sweep.examples.name
  t = sweep.load_teacher().predict(X[40:], verbose=0)
  for student, row in zip(STUDENTS, rows, strict=True):
    logits = sweep.predict(student, "test")
    assert row["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == Y[40:]))
    assert row["agreement"] == pytest.approx(np.mean(logits.argmax(axis=1) == t.argmax(axis=1)))
    assert (row["train_images"], row["test_images"]) == (40, 10)
  fields = deploy.read_metadata(sweep.path("students", f"{STUDENTS[3].name}.tflite"))
  assert fields["labels"] == list(CLASSES) and fields["network"] == "network" and fields["teacher"] == "teacher_network"
  assert "mean" not in fields and "std" not in fields  # The inputs are no pixels.


@pytest.mark.parametrize(
  "make, expected",
  [
    (lambda halves: _arrays(preprocessing=halves), None),
    (lambda halves: _arrays(scale_pixels=True, preprocessing=halves), 0.5),
    (lambda halves: _arrays(scale_pixels=True), 0.0),
    (lambda halves: _pipelines(), None),
    (lambda halves: _pipelines(preprocessing=halves), 0.5),
  ],
)
def test_only_files_of_pixel_inputs_contain_a_scaling(tmp_path, make, expected):
  sweep = _sweep(tmp_path, make(HALVES))
  assert file_metadata(SweepConfig(), sweep.examples).get("mean") == expected


def test_report_of_results(whole):
  _, sweep = whole
  rows = sweep.results.rows()
  lines = reporting.table(rows).splitlines()
  assert lines[0] == "| role | method | scheme | accuracy, % | agreement, % | loss | runs |"
  values = [100 * row["accuracy"] for row in rows[1:3]]
  assert lines[3].startswith(f"| student | labels | float | {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} |")
  assert lines[3].endswith("| 2 |") and len(lines) == 2 + 4
  assert reporting.table(rows[3:], by=["temperature"], columns=["tflite_bytes"]).splitlines()[2] == (
    f"| 2 | {rows[4]['tflite_bytes']:.4f} | 2 |"
  )


@pytest.mark.parametrize(
  "change, field",
  [
    (lambda: (_arrays(), {"student": functools.partial(network, width=9)}), "student: network there"),
    (lambda: (_arrays(), {"teacher": network}), "teacher_layers_sha256"),
    (lambda: (ArrayData((X[:40], Y[:40]), (X[41:], Y[41:]), CLASSES), {}), "data_sha256"),
    (lambda: (_arrays(preprocessing=HALVES), {}), "data: "),
    (lambda: (_pipelines(version="2"), {}), "version"),
  ],
)
def test_changed_network_or_data_set_raises(tmp_path, change, field):
  source, options = change()
  _sweep(tmp_path, _pipelines() if isinstance(source, PipelineData) else _arrays())
  with pytest.raises(ValueError, match=f"another configuration .*{field}"):
    _sweep(tmp_path, source, **options)


@pytest.mark.parametrize(
  "make, words",
  [
    (lambda: ArrayData((X, Y[:-1]), (X, Y), CLASSES), "train must have as many inputs as labels; got 49 and 50"),
    (
      lambda: ArrayData((X, Y), (X, Y.astype(float)), CLASSES),
      "test must have integer labels .n., for the task .classes.; got float64 labels",
    ),
    (
      lambda: ArrayData((X, Y), (X, Y), CLASSES[:2]),
      r"train must have labels in \[0, 1\], one per name in classes; got 2",
    ),
    (lambda: ArrayData((X[:0], Y[:0]), (X, Y), CLASSES), "train has no examples"),
    (lambda: _arrays().arrays("extra"), "arrays has no split 'extra': expected one of train, test"),
    (lambda: _sweep("unused", None), "a sweep needs either data or SweepConfig.dataset"),
    (lambda: _sweep("unused", _arrays(), dataset="svhn"), "a sweep needs either data or SweepConfig.dataset"),
    (lambda: _sweep("unused", _arrays(), augment=True), "needs a data set with an augmentation; arrays has none"),
    (lambda: _sweep("unused", _pipelines(), batch_size=8), "batch_size is 8, but the training batches have 16"),
    (lambda: _sweep("unused", _pipelines(), mixup=0.1), "PipelineData cannot apply mixup"),
    (lambda: _sweep("unused", _arrays(), student="resnet9"), "resnet9"),
  ],
)
def test_invalid_data_and_options_raise(tmp_path, monkeypatch, make, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match=words):
    make()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"student": network(3, (6,))}, {"teacher": 3}])
def test_network_that_is_neither_name_nor_function_raises(tmp_path, options):
  with pytest.raises(TypeError, match="a network must be a name or a function"):
    _sweep(tmp_path, _arrays(), **options)


def test_data_that_is_no_data_set_raises(tmp_path):
  with pytest.raises(TypeError, match="data must be ArrayData, PipelineData or a tfkd.data.Dataset; got tuple"):
    _sweep(tmp_path, (X, Y))


def test_trained_teacher_is_used_unchanged_with_zero_epochs(tmp_path):
  trained = teacher_network(3, (6,))

  def build(num_classes, input_shape):
    return _copy(trained)

  sweep = _sweep(tmp_path, _arrays(), teacher=build, teacher_epochs=0)
  sweep.train_teacher()
  for a, b in zip(sweep.load_teacher().get_weights(), trained.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_allclose(sweep.teacher.outputs["test"].outputs, trained(X[40:]), rtol=1e-5, atol=1e-6)
  trained.set_weights([2 * weight for weight in trained.get_weights()])
  with pytest.raises(ValueError, match="teacher_weights_sha256"):
    _sweep(tmp_path, _arrays(), teacher=build, teacher_epochs=0)


def _copy(model):
  copy = keras.models.clone_model(model)
  copy.set_weights(model.get_weights())
  return copy


def test_students_with_equal_names_and_different_networks_raise(tmp_path):
  sweep = _sweep(tmp_path, _arrays())
  students = [StudentSpec("mine", "labels", network=lambda *shape, w=w: network(*shape, w)) for w in (4, 5)]
  with pytest.raises(ValueError, match="two networks have the name .*<lambda>"):
    sweep.run(students)


def test_results_of_a_changed_network_function_raise(tmp_path):
  sweep, students = _sweep(tmp_path, _arrays()), []
  for width in (4, 5):

    def mine(num_classes, input_shape, width=width):
      return network(num_classes, input_shape, width)

    students.append(StudentSpec("mine", "labels", network=mine))
  sweep.run(students[:1])
  sweep.run(students[:1])
  with pytest.raises(ValueError, match="belong to a different network than .*mine builds now: rename the function"):
    sweep.run(students[1:])


def test_network_names():
  assert networks.name_of(functools.partial(network, width=9)) == "network(width=9)"
  assert networks.name_of("resnet20") == "resnet20"
  one, same, other = (networks.structure_digest(network(3, (6,), width)) for width in (8, 8, 9))
  assert one == same != other


def test_network_digest_depends_on_connections():
  def build(skip):
    inputs = keras.Input((4,))
    a = keras.layers.Dense(4)(inputs)
    b = keras.layers.Dense(4)(a)
    return keras.Model(inputs, keras.layers.Add()([b, a if skip else inputs]))

  assert networks.structure_digest(build(True)) == networks.structure_digest(build(True))
  assert networks.structure_digest(build(True)) != networks.structure_digest(build(False))


def test_workspace_without_writes_stays_empty(tmp_path):
  workspace = Workspace(tmp_path / "new", writes=False)
  workspace.claim({"epochs": 1})
  workspace.add({"seed": 0})
  workspace.save(network(3, (6,)), workspace.path("student.keras"))
  assert not (tmp_path / "new").exists()


def test_steps_of_students_are_timed_in_turns(whole):
  _, sweep = whole
  seconds = step_seconds(sweep, {"labels": STUDENTS[0], "soft": STUDENTS[2]}, rounds=2, steps=1)
  assert {name: len(times) for name, times in seconds.items()} == {"labels": 2, "soft": 2}
  assert all(second > 0 for times in seconds.values() for second in times)
