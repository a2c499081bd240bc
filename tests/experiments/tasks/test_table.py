"""The drawn table: its columns, its teacher of boosted trees, and distillation without labels."""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from experiments.tasks import table
from tests.experiments import scripts


@pytest.fixture(scope="module")
def drawn():
  return table.draw(3_000, seed=5)


@pytest.fixture(scope="module")
def trees(drawn):
  pytest.importorskip("sklearn")
  return table.BoostedTrees(*(part[:1_000] for part in drawn), iterations=20)


def test_columns_are_normal_numbers_and_one_hot_categories_and_amounts_have_unit_std(drawn):
  columns, classes, amounts = drawn
  assert columns.shape == (3_000, table.NUMBERS + sum(table.CATEGORIES)) and columns.dtype == np.float32
  np.testing.assert_allclose(columns[:, : table.NUMBERS].std(axis=0), 1, atol=0.06)
  for category in np.split(columns[:, table.NUMBERS :], np.cumsum(table.CATEGORIES)[:-1], axis=1):
    assert set(np.unique(category)) == {0, 1}
    np.testing.assert_array_equal(category.sum(axis=1), 1)
  assert set(np.unique(classes)) == set(range(len(table.CLASSES)))
  assert amounts.shape == (3_000, 1)
  np.testing.assert_allclose(amounts.std(), 1, atol=1e-5)
  np.testing.assert_array_equal(amounts, table.draw(3_000, seed=5).amounts)
  assert not np.array_equal(amounts, table.draw(3_000, seed=6).amounts)


def test_the_splits_have_different_rows_and_the_unlabelled_one_has_no_labels():
  data = table.data()
  (train, _), (unlabelled, labels), (test, _) = (data.arrays(split) for split in ("train", "unlabelled", "test"))

  assert labels is None
  assert [len(rows) for rows in (train, unlabelled, test)] == list(table.ROWS.values())
  assert len(np.unique(np.concatenate([train, unlabelled, test]), axis=0)) == sum(table.ROWS.values())


def test_the_teacher_returns_what_scikit_learn_predicts(drawn, trees):
  columns, classes, amounts = drawn
  outputs = tf.function(lambda batch: trees(batch).outputs)(columns[2_000:])

  assert outputs["class"].shape == (1_000, 4) and outputs["amount"].shape == (1_000, 1)
  from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
  from threadpoolctl import threadpool_limits

  options = {"max_iter": 20, "learning_rate": 0.06, "random_state": 0}
  with threadpool_limits(1):
    classifier = HistGradientBoostingClassifier(**options).fit(columns[:1_000], classes[:1_000])
    regressor = HistGradientBoostingRegressor(**options).fit(columns[:1_000], amounts[:1_000, 0])
    probabilities, predicted = classifier.predict_proba(columns[2_000:]), regressor.predict(columns[2_000:])
  np.testing.assert_allclose(np.exp(outputs["class"]), probabilities, rtol=1e-4)
  np.testing.assert_allclose(outputs["amount"][:, 0], predicted, rtol=1e-4, atol=1e-5)


def test_students_learn_both_outputs_from_trees_online_and_cached_without_labels(drawn, trees, tmp_path):
  columns = drawn.columns[1_000:2_000]
  batches = tf.data.Dataset.from_tensor_slices(columns).batch(250)
  cached = tfkd.teachers.cache(trees, batches, tmp_path / "cache")
  found = trees(columns).outputs
  for name, values in found.items():
    np.testing.assert_array_equal(cached.outputs[name], values)

  losses = []
  for teacher, inputs in ((trees, batches.map(lambda x: (x,))), (cached, cached.zip(batches))):
    keras.utils.set_random_seed(0)
    student = table.network({"class": 4, "amount": 1}, (columns.shape[1],), units=16)
    distiller = tfkd.Distiller(
      teacher,
      student,
      [tfkd.objectives.SoftTargets(1.0, output="class"), tfkd.objectives.MatchOutputs("mse", output="amount")],
      hard_loss_weight=0.0,
    )
    distiller.compile("adam")
    losses.append(distiller.fit(inputs, epochs=2, verbose=0).history["loss"])
  assert losses[0][1] < losses[0][0]
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_trees_of_other_data_have_another_description(drawn, trees):
  again = table.BoostedTrees(*(part[:1_000] for part in drawn), iterations=20)
  others = table.BoostedTrees(*(part[:999] for part in drawn), iterations=20)
  fewer = table.BoostedTrees(*(part[:1_000] for part in drawn), iterations=5)

  assert trees.describe() == again.describe()
  assert others.describe() != trees.describe() != fewer.describe()


def test_without_scikit_learn_the_teacher_is_a_wide_network(monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
  with pytest.MonkeyPatch.context() as patch:
    warnings = []
    patch.setattr(table.logging, "warning", lambda *args: warnings.append(args[0]))
    teacher = table.teacher({"class": 4, "amount": 1}, (29,))

  assert isinstance(teacher, keras.Model) and not table.has_trees() and len(warnings) == 1
  student = table.network({"class": 4, "amount": 1}, (29,))
  assert teacher.count_params() > 10 * student.count_params()
  assert {name: shape[-1] for name, shape in student.output_shape.items()} == {"class": 4, "amount": 1}
  tfkd.quantization.quantize(student, "w8a8")


@pytest.mark.end_to_end
def test_the_script_reports_both_outputs_of_students_and_files(tmp_path):
  completed = scripts.run("tasks.table", tmp_path, "--preset=quick", "--epochs=4", "--qat_epochs=1")

  assert completed.returncode == 0, completed.stderr
  assert "class accuracy" in completed.stdout and "| teacher on unlabelled rows |" in completed.stdout
