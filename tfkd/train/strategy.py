"""Which devices train: the only place that asks what devices there are."""

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored")


def make_strategy(name):
  """Makes a `tf.distribute` strategy.

  Args:
    name: "auto" (all GPUs, or else the CPU), "one_device" (the first GPU, or else the CPU) or "mirrored" (all GPUs, or
      else all logical CPUs).

  Returns:
    `tf.distribute.Strategy`.

  Raises:
    ValueError: unknown name.
  """
  if name not in STRATEGIES:
    raise ValueError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}.")
  gpus = tf.config.list_physical_devices("GPU")
  for gpu in gpus:
    # Without it TensorFlow takes all memory of every GPU, used or not. Too late once a GPU was touched.
    tf.config.experimental.set_memory_growth(gpu, True)
  if name == "one_device" or (name == "auto" and len(gpus) < 2):
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
  kind = "GPU" if gpus else "CPU"
  devices = [f"/{kind.lower()}:{i}" for i in range(len(tf.config.list_logical_devices(kind)))]
  # The default reduction allows one MirroredStrategy in a process; on CPU devices this one allows several.
  reduction = None if gpus else tf.distribute.ReductionToOneDevice()
  return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
