"""Several labels for one picture: which digits are in a drawn house number, and how its ink differs from the wall.

  python -m experiments.tasks.attributes --preset=quick
  python -m experiments.tasks.attributes --preset=full

Crops are drawn by `tfkd.data.house_numbers`. Ten labels are the digits of which half or more is in the crop, five the
classes of the ink's colour; two to five labels of a crop are 1.
"""

import numpy as np
import tf_keras as keras

from experiments import _run
from experiments.tasks import comparison
from experiments.tasks.comparison import Method, Task
from experiments.tasks.crops import drawn
from tfkd import models
from tfkd.data import house_numbers
from tfkd.objectives import BinarySoftTargets, MatchFeatures
from tfkd.sweeps import ArrayData

LABELS = (*map(str, range(10)), *house_numbers.COLORS)


def data():
  """Draws the crops."""
  return ArrayData(*map(_examples, drawn()), LABELS, task="multi-label", name="drawn_attributes", scale_pixels=True)


def _examples(crops):
  """Returns images uint8 [n, 32, 32, 3], and labels 0 or 1 [n, 15]."""
  colors = np.eye(len(house_numbers.COLORS), dtype=np.uint8)[crops.colors]
  return crops.images, np.concatenate([crops.present, colors], axis=1)


def teacher(num_labels, input_shape):
  """The network of the SVHN homework, without change."""
  return models.build("svhn_cnn", num_labels, input_shape)


def student(num_labels, input_shape):
  """The same network of three channels in place of sixteen."""
  return models.build("svhn_cnnx0.1875", num_labels, input_shape)


def _areas():
  """Makes the area under the ROC curve, mean over labels: chance is 0.5, whatever the share of a label."""
  return [keras.metrics.AUC(multi_label=True, num_labels=len(LABELS), from_logits=True, name="auc")]


_SOFT = BinarySoftTargets(2.0)
METHODS = {
  "labels": Method(),
  "soft targets": Method((_SOFT,)),
  "soft targets, features": Method((_SOFT, MatchFeatures("flatten", "flatten", connector="project"))),
}
EXPERIMENT = comparison.experiment(
  Task(
    "attributes",
    data,
    teacher,
    student,
    METHODS,
    scheme="w8a8",
    columns=("binary_accuracy",),
    metrics=_areas,
  ),
  presets={
    "quick": {"crops": 1000, "epochs": 2, "qat_epochs": 1, "teacher_epochs": 3, "batch_size": 64, "seeds": [0, 1]},
    "full": {
      "crops": 10000,
      "epochs": 10,
      "qat_epochs": 2,
      "teacher_epochs": 12,
      "batch_size": 64,
      "learning_rate": 5e-3,
      "teacher_learning_rate": 3e-3,
      "seeds": [0, 1, 2],
    },
  },
)

if __name__ == "__main__":
  _run.main(EXPERIMENT)
