"""Which digit covers each pixel of a drawn house number: a small U-Net learns from a larger one.

  python -m experiments.tasks.digit_masks --preset=quick
  python -m experiments.tasks.digit_masks --preset=full

Crops are drawn by `tfkd.data.house_numbers`. Eleven classes: background, which has five pixels of six, and the ink of
each digit, whether in the middle or cut off.
"""

import functools

import numpy as np
import tf_keras as keras

from experiments import _run
from experiments.tasks import comparison
from experiments.tasks.comparison import Method, Task
from experiments.tasks.crops import drawn
from tfkd.objectives import ChannelWise, SoftTargets
from tfkd.sweeps import ArrayData

CLASSES = ("background", *map(str, range(10)))
BACKGROUND_WEIGHT = 0.25
"""Of background pixels in training, since most are background: one seed learned faster with it than without."""

layers = keras.layers


def data():
  """Draws the crops."""
  train, test = drawn()
  weights = np.where(train.masks > 0, 1.0, BACKGROUND_WEIGHT).astype(np.float32)
  return ArrayData(
    (train.images, train.masks, weights),
    (test.images, test.masks),
    CLASSES,
    task="per-element classes",
    name="drawn_digit_masks",
    scale_pixels=True,
  )


def u_net(num_classes, input_shape, widths):
  """A U-Net from images to logits [batch, height, width, classes], one convolution in each block.

  Args:
    num_classes: number of classes.
    input_shape: (height, width, channels); 2 ** (len(widths) - 1) divides height and width.
    widths: channels of each resolution, the finest first.
  """
  x = inputs = keras.Input(input_shape)
  skips = []
  for level, width in enumerate(widths):
    if level:
      x = layers.MaxPooling2D(name=f"pool{level}")(x)
    x = _block(x, width, f"down{level}")
    skips.append(x)
  for level, width in reversed(list(enumerate(widths[:-1]))):
    x = layers.Conv2DTranspose(width, 2, strides=2, name=f"larger{level}")(x)
    x = layers.Concatenate(name=f"joined{level}")([skips[level], x])
    x = _block(x, width, f"up{level}")
  # Losses read float32 logits under mixed precision too.
  return keras.Model(inputs, layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x))


def _block(x, width, name):
  x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
  x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
  return layers.ReLU(name=f"{name}_relu")(x)


TASK = Task(
  "digit_masks",
  data,
  functools.partial(u_net, widths=(12, 32, 64, 96)),
  functools.partial(u_net, widths=(12, 16, 24, 32)),
  methods={
    "labels": Method(),
    "soft targets": Method((SoftTargets(2.0),)),
    "channel-wise": Method((ChannelWise("logits", "logits"),)),
  },
  scheme="w8a8",
  columns=("mean_iou", "accuracy"),
)
EXPERIMENT = comparison.experiment(
  TASK,
  presets={
    "quick": {"crops": 400, "epochs": 2, "qat_epochs": 1, "teacher_epochs": 3, "batch_size": 20, "seeds": [0]},
    "full": {
      "crops": 4000,
      "epochs": 10,
      "qat_epochs": 2,
      "teacher_epochs": 14,
      "batch_size": 20,
      "learning_rate": 5e-3,
      "teacher_learning_rate": 4e-3,
      "seeds": [0, 1, 2],
    },
  },
)

if __name__ == "__main__":
  _run.main(EXPERIMENT)
