"""Students of the SVHN homework: objectives and weights of each question, and the loss that is trained."""

import numpy as np
import pytest

from experiments.svhn import questions
from tests.losses import references
from tests.sweeps.small import sweep
from tfkd import quantization
from tfkd.sweeps import trainer

TEMPERATURES = [5.0, 15.0]
SOFT_WEIGHT = 0.25
# (question, method, T of the row): ((source, T and weight of the soft targets), weight of the hard loss).
# In order: q1 with labels and with the teacher's probabilities, q2 soft, q3 hard + soft, q4 hard + soft of labels.
EXPECTED = {
  ("q1", "labels", None): (None, 1.0),
  ("q1", "teacher labels", None): (("teacher", 1.0, 1.0), 0.0),
  ("q2", "soft", 5.0): (("teacher", 5.0, 1.0), 0.0),
  ("q2", "soft", 15.0): (("teacher", 15.0, 1.0), 0.0),
  ("q3", "hard + soft", 5.0): (("teacher", 5.0, SOFT_WEIGHT), 1.0),
  ("q3", "hard + soft", 15.0): (("teacher", 15.0, SOFT_WEIGHT), 1.0),
  ("q4", "hard + label soft", 5.0): (("labels", 5.0, SOFT_WEIGHT), 1.0),
  ("q4", "hard + label soft", 15.0): (("labels", 15.0, SOFT_WEIGHT), 1.0),
}


def _students(scheme, seeds):
  return [
    student
    for question in ("q1", "q2", "q3", "q4")
    for student in questions.students(question, scheme, TEMPERATURES, seeds, SOFT_WEIGHT)
  ]


@pytest.mark.parametrize("scheme, start", [("w2a1", "scratch"), ("float", "scratch"), ("w8a8", "teacher")])
def test_students_have_the_sources_temperatures_and_weights_of_the_homework(scheme, start):
  students = _students(scheme, [0, 3])
  assert len(students) == 2 * len(EXPECTED)
  for question in ("q1", "q2", "q3", "q4"):
    found = [(s.seed, (s.experiment, s.method, s.temperature)) for s in students if s.experiment == question]
    assert found == [(seed, key) for seed in (0, 3) for key in EXPECTED if key[0] == question]  # Seed by seed.
  for student in students:
    soft, hard_loss_weight = EXPECTED[student.experiment, student.method, student.temperature]
    assert student.hard_loss_weight == hard_loss_weight
    assert (student.scheme, student.start) == (scheme, start)
    assert (student.network, student.epochs, student.adapt) == (None, None, None)
    assert dict(student.choices) == ({"soft_weight": SOFT_WEIGHT} if student.experiment in ("q3", "q4") else {})
    found = [(type(o).__name__, o.source, o.temperature, o.weight) for o in student.objectives]
    assert found == ([("SoftTargets", *soft)] if soft else [])
    for objective in student.objectives:
      # The soft loss of the homework: T^2 times the cross-entropy of unchanged logits.
      assert (objective.form, objective.scale_by_t2, objective.standardize) == ("cross_entropy", True, False)


@pytest.mark.end_to_end
def test_the_trained_loss_is_that_of_the_homework(tmp_path, data_dir, run_eagerly, monkeypatch):
  original, batches = trainer.fit, []

  def fit(model, train, *args, **kwargs):
    batches.append(next(iter(train(0).take(1))))
    return original(model, train, *args, **kwargs)

  monkeypatch.setattr(trainer, "fit", fit)
  # One step with a learning rate of 0, so that the trained student has the weights of the recorded loss.
  runs = sweep(tmp_path, data_dir, learning_rate=0.0, batch_size=96)
  students = _students("float", [3])
  runs.run(students)
  teacher = runs.load_teacher()
  assert len(batches) == 1 + len(EXPECTED)
  for student, (inputs, labels) in zip(students, batches[1:], strict=True):
    images = inputs[0] if isinstance(inputs, tuple) else inputs  # A tuple also has the teacher's cached logits.
    (row,) = runs.rows(student)
    t = teacher.predict(images, verbose=0)
    # In training, batch normalization uses the statistics of the batch.
    s = quantization.load(str(tmp_path / "students" / f"{student.name}.keras"))(images, training=True).numpy()
    soft, hard_loss_weight = EXPECTED[student.experiment, student.method, student.temperature]
    one_hot = np.eye(10)[labels]
    expected = hard_loss_weight * references.tempered_cross_entropy(one_hot, s, 1.0).mean()
    if soft:
      source, temperature, weight = soft
      if source == "labels":
        losses = references.tempered_cross_entropy(one_hot, s, temperature)
      else:
        losses = references.soft_target_cross_entropy(t, s, temperature)
      expected += weight * temperature**2 * losses.mean()
    assert row["history"]["loss"] == [pytest.approx(expected, rel=1e-4)], student.name
