"""Students that share a trace end as those that have one of their own."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.distiller.small import compiled, with_batch_norm
from tests.sweeps.small import sweep
from tfkd import quantization
from tfkd.objectives import Hint, SoftTargets
from tfkd.sweeps import FLOAT, StudentSpec, student_stage
from tfkd.sweeps.trace_sharing import SharedDistillers, with_variables


def _soft(seed, temperature, weight=1.0, hard=1.0, scheme=FLOAT, **fields):
  objectives = (SoftTargets(temperature, weight=weight, form="cross_entropy"),)
  return StudentSpec(
    "q3", "soft", scheme, seed, objectives, hard, temperature, {"weight": weight, "hard": hard}, **fields
  )


def _hinted(seed, weight):
  objectives = (SoftTargets(2.0), Hint("relu1", "relu1", weight=weight, connector="conv1x1"))
  return StudentSpec("q4", "hint", FLOAT, seed, objectives, choices={"weight": weight})


@pytest.mark.parametrize(
  "students, training",
  [
    ([_soft(0, 5.0), _soft(1, 5.0), _soft(2, 9.0, weight=0.3, hard=0.7)], {"optimizer": "sgd", "ema": 0.1}),
    ([_soft(0, 5.0, scheme="w8a8", start="teacher"), _soft(1, 7.0, scheme="w8a8", start="teacher")], {}),
    pytest.param([_soft(0, 5.0, scheme="w2a1"), _soft(1, 7.0, scheme="w2a1")], {}, marks=pytest.mark.end_to_end),
    ([_hinted(0, 1.0), _hinted(1, 0.2)], {}),
  ],
  ids=["float", "w8a8", "w2a1", "connectors"],
)
def test_students_with_a_shared_trace_equal_students_trained_separately(
  tmp_path, data_dir, monkeypatch, students, training
):
  # Export takes longer than the training, and has no part in it.
  monkeypatch.setattr(student_stage, "export", lambda *args, **kwargs: {})
  together = sweep(tmp_path / "together", data_dir, **training)
  together.train_teacher()
  shutil.copytree(tmp_path / "together", tmp_path / "alone")
  traced = []
  original = keras.Model.make_train_function
  monkeypatch.setattr(
    keras.Model,
    "make_train_function",
    lambda self, force=False: traced.append(self.train_function is None or force) or original(self, force),
  )
  for student in students:  # A later call of `run` has the trace of an earlier one.
    together.run([student])
  assert traced.count(True) == 1
  monkeypatch.setattr(SharedDistillers, "share", lambda self, distiller, recipe: distiller)
  alone = sweep(tmp_path / "alone", data_dir, **training)
  alone.run(students[-1:])
  ours, expected = (
    quantization.load(str(tmp_path / folder / "students" / f"{students[-1].name}.keras")).get_weights()
    for folder in ("together", "alone")
  )
  for a, b in zip(ours, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  row, other = (runs.results.find(**students[-1].key)[0] for runs in (together, alone))
  assert row["history"] == {name: pytest.approx(values, rel=1e-5) for name, values in other["history"].items()}


def test_students_with_different_graphs_have_separate_distillers(tmp_path, data_dir):
  soft = _soft(0, 5.0)
  students = [
    soft, soft._replace(hard_loss_weight=0.0), soft._replace(epochs=3), soft._replace(network="svhn_cnnx0.25"),
    soft._replace(objectives=(SoftTargets(5.0),)), soft,
  ]  # fmt: skip
  runs = sweep(tmp_path, data_dir)
  runs.train_teacher()
  made = [runs.students.distiller(student, runs.teacher.outputs["train"]) for student in students]
  assert len({id(distiller) for distiller in made}) == 6  # The first graph was the oldest of five, and is gone.
  assert runs.students.distiller(soft._replace(seed=9), runs.teacher.outputs["train"]) is made[-1]
  assert runs.students.distiller(soft, runs.teacher.model) is not made[-1]


def test_students_with_random_layers_share_no_trace(vectors):
  shared = SharedDistillers()
  distillers = [compiled(None, with_batch_norm(), []) for _ in range(2)]
  assert [shared.share(distiller, []) for distiller in distillers] == distillers


def test_temperature_and_weight_change_without_retracing(vectors):
  x, y = vectors
  teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
  student = keras.models.clone_model(teacher)
  objectives = [SoftTargets(2.0, weight=0.5)]
  hard_loss_weight = with_variables(objectives, 1.0)
  distiller = compiled(teacher, student, objectives, keras.optimizers.SGD(0.0), hard_loss_weight=hard_loss_weight)
  data = tf.data.Dataset.from_tensor_slices((x, y)).batch(24)
  distiller.fit(data, verbose=0)
  function = distiller.train_function
  for temperature, weight, hard in ((2.0, 0.5, 1.0), (6.0, 0.5, 1.0), (6.0, 2.0, 0.25)):
    objectives[0].temperature.assign(temperature)
    objectives[0].weight.assign(weight)
    hard_loss_weight.assign(hard)
    history = distiller.fit(data, verbose=0).history
    plain = compiled(teacher, student, [SoftTargets(temperature, weight=weight)], hard_loss_weight=hard)
    expected = plain.evaluate(data, verbose=0, return_dict=True)["loss"]
    assert history["loss"] == [pytest.approx(expected, rel=1e-5)]
  assert distiller.train_function is function
  config = distiller.get_config()
  assert config["hard_loss_weight"] == 0.25 and config["objectives"][0]["config"]["temperature"] == 6.0
