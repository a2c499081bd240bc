"""The language model of characters: its texts, its windows, and networks that see no later character."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.tasks import characters
from tests.experiments import scripts
from tfkd import deploy


def _paragraphs(texts):
  return [" ".join(paragraph.split()) for text in texts for paragraph in text.split("\n\n")]


def test_the_test_set_is_a_tenth_of_the_text_and_shares_no_paragraph_with_the_training_set():
  train, test = characters.texts()

  assert 0.03 < sum(map(len, test)) / sum(map(len, train)) < 0.3  # Other versions of Python have other texts.
  paragraphs = _paragraphs([*train, *test])
  assert len(set(paragraphs)) == len(paragraphs)


def test_the_split_depends_on_the_names_of_topics_alone_and_the_test_set_keeps_what_both_have():
  names = [f"topic{number}" for number in range(100)]
  held_out = [name for name in names if characters.is_held_out(name)]
  topics = {name: f"shared\n\n  paragraph of\n{name}" for name in names}

  train, test = characters.texts(topics)
  assert characters.texts(dict(reversed(topics.items()))) == (train, test)
  assert 0 < len(held_out) < 30
  own = {f"paragraph of {name}" for name in held_out}
  assert set(_paragraphs(test)) - {""} == own | {"shared"}
  assert set(_paragraphs(train)) - {""} == {f"paragraph of {name}" for name in names} - own


def test_labels_are_the_next_characters_and_windows_join_to_the_text():
  text = "The GRU reads\n'x_1'! " * 20
  inputs, labels = characters.windows([text, "short", text[: characters.LENGTH + 1]])

  n = (len(text) - 1) // characters.LENGTH
  assert inputs.shape == labels.shape == (n + 1, characters.LENGTH)
  decoded = "".join(characters.ALPHABET[index] for index in inputs[:n].ravel())
  assert decoded == ("the gru reads\n'x_#'# " * 20)[: n * characters.LENGTH]
  np.testing.assert_array_equal(inputs[:n].ravel()[1:], labels[:n].ravel()[:-1])
  np.testing.assert_array_equal(inputs[0], inputs[n])


def test_a_character_changes_no_earlier_logit_and_the_file_computes_what_the_student_computes(tmp_path):
  rng = np.random.default_rng(0)
  inputs = rng.integers(0, 41, (1, characters.LENGTH)).astype("int32")
  changed = inputs.copy()
  changed[0, 40] = (changed[0, 40] + 1) % 41
  student = characters.recurrent(41, (characters.LENGTH,), units=64)

  for model in (student, characters.recurrent(41, (characters.LENGTH,), units=32, dropout=0.3)):
    first, second = model(inputs).numpy(), model(changed).numpy()
    np.testing.assert_array_equal(first[:, :40], second[:, :40])
    assert np.abs(first[:, 40:] - second[:, 40:]).max(axis=-1).min() > 0

  deploy.to_tflite(student, tmp_path / "student.tflite", task="per-element classes")
  test = tf.data.Dataset.from_tensors((inputs, inputs))
  row = deploy.evaluate(tmp_path / "student.tflite", test, student)
  assert row["agreement"] == 1 and row["worst_difference"] < 1e-5


def test_students_read_a_part_of_the_windows_that_the_teacher_reads():
  data = characters.data()
  (inputs, labels), part, (held_out, _) = (data.arrays(split) for split in ("train", "part", "test"))

  for whole, taken in zip((inputs, labels), part, strict=True):
    assert len(taken) == -(-len(whole) // characters.PART)
    np.testing.assert_array_equal(taken[-1], whole[characters.PART * (len(taken) - 1)])
  assert len(held_out) > 0 and data.outputs.size == len(characters.ALPHABET)


@pytest.mark.end_to_end
def test_the_script_reports_nats_per_character_of_students_and_files(tmp_path):
  completed = scripts.run("tasks.characters", tmp_path, "--preset=quick", "--epochs=1", "--teacher_epochs=1")

  assert completed.returncode == 0, completed.stderr
  assert "cross-entropy" in completed.stdout and "| Jensen-Shannon |" in completed.stdout
  assert "characters for training" in completed.stderr
