"""Several labels for one picture: which digits are in a drawn house number, and how its ink differs from the wall.

  python -m experiments.tasks.attributes --preset=quick
  python -m experiments.tasks.attributes --preset=full

Crops are drawn by `tfkd.data.house_numbers`. Ten labels are the digits of which half or more is in the crop, five the
classes of the ink's colour. A third method learns from crops without labels, of which there are three times as many.
"""

import numpy as np
import tf_keras as keras

from experiments import _run
from experiments.tasks import comparison
from experiments.tasks.comparison import Method, Task
from experiments.tasks.crops import drawn, stream
from tfkd import models
from tfkd.data import house_numbers
from tfkd.objectives import BinarySoftTargets
from tfkd.sweeps import ArrayData

LABELS = (*map(str, range(10)), *house_numbers.COLORS)
UNLABELLED = 3
"""Number of crops without labels for each one with labels."""


def data():
  """Draws the crops."""
  train, test = drawn()
  unlabelled = stream(2, UNLABELLED * len(train.images))
  return ArrayData(
    (train.images, _labels(train)),
    (test.images, _labels(test)),
    LABELS,
    task="multi-label",
    name="drawn_attributes",
    scale_pixels=True,
    splits={"unlabelled": (unlabelled.images, None)},
  )


def _labels(crops):
  """Returns labels 0 or 1 [n, 15]."""
  colors = np.eye(len(house_numbers.COLORS), dtype=np.uint8)[crops.colors]
  return np.concatenate([crops.present, colors], axis=1)


def teacher(num_labels, input_shape):
  """The network of the SVHN homework, without change."""
  return models.build("svhn_cnn", num_labels, input_shape)


def student(num_labels, input_shape):
  """The same network of four channels in place of sixteen."""
  return models.build("svhn_cnnx0.25", num_labels, input_shape)


def _areas():
  """Makes the area under the ROC curve, mean over labels: chance is 0.5, whatever the share of a label."""
  return [keras.metrics.AUC(multi_label=True, num_labels=len(LABELS), from_logits=True, name="auc")]


METHODS = {
  "labels": Method(),
  "soft targets": Method((BinarySoftTargets(2.0),)),
  # As many steps as on the labelled crops.
  "soft targets, unlabelled crops": Method((BinarySoftTargets(2.0),), 0.0, "unlabelled", 1 / UNLABELLED),
}
TASK = Task(
  "attributes",
  data,
  teacher,
  student,
  METHODS,
  scheme="w8a8",
  columns=("binary_accuracy",),
  metrics=_areas,
)
EXPERIMENT = comparison.experiment(
  TASK,
  presets={
    "quick": {"crops": 600, "epochs": 3, "qat_epochs": 1, "teacher_epochs": 4, "batch_size": 64, "seeds": [0, 1]},
    "full": {
      "crops": 3000,
      "epochs": 36,
      "qat_epochs": 3,
      "teacher_epochs": 16,
      "batch_size": 64,
      "learning_rate": 5e-3,
      "teacher_learning_rate": 3e-3,
      "seeds": [0, 1, 2],
    },
  },
)

if __name__ == "__main__":
  _run.main(EXPERIMENT)
