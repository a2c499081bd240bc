"""The task of several labels: labels, networks, and a whole run."""

import numpy as np
import pytest

from experiments.tasks import attributes
from tests.experiments.tasks import runs
from tfkd.data import house_numbers


def test_labels_are_the_digits_inside_and_one_color(monkeypatch):
  crops = house_numbers.draw_annotated(40, 0), house_numbers.draw_annotated(10, 1)
  monkeypatch.setattr(attributes, "drawn", lambda: crops)
  source = attributes.data()
  assert source.outputs.task == "multi-label" and source.outputs.names == attributes.LABELS
  assert source.arrays("unlabelled")[0].shape == (120, 32, 32, 3) and source.arrays("unlabelled")[1] is None
  images, labels = source.train
  np.testing.assert_array_equal(images, crops[0].images)
  for row, present, color in zip(labels, crops[0].present, crops[0].colors, strict=True):
    names = [attributes.LABELS[number] for number in np.flatnonzero(row)]
    assert names == [*map(str, np.flatnonzero(present)), house_numbers.COLORS[color]]


def test_the_student_is_a_narrow_copy_of_the_teacher():
  teacher, student = (build(15, (32, 32, 3)) for build in (attributes.teacher, attributes.student))
  assert teacher.output_shape == student.output_shape == (None, 15)
  assert [layer.name for layer in teacher.layers] == [layer.name for layer in student.layers]
  assert teacher.count_params() > 15 * student.count_params()


@pytest.mark.end_to_end
def test_a_run_writes_files_of_the_task_and_a_report(tmp_path):
  rows, metadata, report = runs.of_few_crops("attributes", tmp_path)
  assert [row["method"] for row in rows] == list(attributes.METHODS)
  assert all(0 < row["binary_accuracy"] < 1 and 0 < row["further"]["auc"] < 1 for row in rows)
  assert len(metadata) == len(rows)
  for fields in metadata:
    assert fields["task"] == "multi-label" and tuple(fields["labels"]) == attributes.LABELS
  assert "auc" in report
