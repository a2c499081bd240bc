"""The task of digit masks: labels, networks, and a whole run."""

import numpy as np
import pytest

from experiments.tasks import digit_masks
from tests.experiments.tasks import runs
from tfkd.data import house_numbers


def test_background_pixels_weigh_less_in_training_and_nowhere_else(monkeypatch):
  crops = house_numbers.draw_annotated(20, 0), house_numbers.draw_annotated(10, 1)
  monkeypatch.setattr(digit_masks, "drawn", lambda: crops)
  source = digit_masks.data()
  assert source.outputs.task == "per-element classes" and source.outputs.size == 11
  _, masks, weights = source.train
  np.testing.assert_array_equal(masks, crops[0].masks)
  assert set(weights[masks == 0]) == {digit_masks.BACKGROUND_WEIGHT} and set(weights[masks > 0]) == {1.0}
  assert len(source.test) == 2


def test_networks_give_logits_of_each_pixel():
  network = digit_masks.u_net(11, (16, 24, 3), widths=(4, 6, 8))
  assert network.output_shape == (None, 16, 24, 11)
  levels = [network.get_layer(name).output_shape[1:] for name in ("down0_relu", "down1_relu", "down2_relu", "up0_relu")]
  assert levels == [(16, 24, 4), (8, 12, 6), (4, 6, 8), (16, 24, 4)]


@pytest.mark.end_to_end
def test_a_run_writes_integer_files_of_the_task_and_a_report(tmp_path):
  rows, metadata, report = runs.of_few_crops("digit_masks", tmp_path)
  assert [row["method"] for row in rows] == ["labels", "soft targets", "channel-wise"]
  assert all(0 < row["mean_iou"] < 1 and row["images"] == 2000 for row in rows)
  assert len(metadata) == 3
  for fields in metadata:
    assert (fields["task"], fields["labels"][:2]) == ("per-element classes", ["background", "0"])
  assert "| channel-wise |" in report and "mean IoU" in report
