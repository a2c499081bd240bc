"""A small network, and sweeps that train it."""

import tf_keras as keras

from tfkd.sweeps import Sweep, SweepConfig


def network(num_classes, input_shape):
  """A network that is traced in a fraction of the time of a built-in one."""
  x = inputs = keras.Input(input_shape)
  for i, stride in enumerate((4, 1)):
    x = keras.layers.Conv2D(8, 3, stride, use_bias=False, name=f"conv{i}")(x)
    x = keras.layers.BatchNormalization(name=f"bn{i}")(x)
    x = keras.layers.ReLU(name=f"relu{i}")(x)
  x = keras.layers.GlobalAveragePooling2D()(x)
  return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x))


def sweep(workdir, data_dir, **training):
  options = {"dataset": "house_numbers", "data_dir": data_dir, "epochs": 1, "teacher_epochs": 1, "batch_size": 32}
  options |= {"teacher": network, "student": network}
  return Sweep(str(workdir), SweepConfig(**options | training))
