"""Which devices and machines train: the only place that asks what there is."""

import json
import os

import tensorflow as tf

from tfkd import files

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


def make_strategy(name):
  """Makes a `tf.distribute` strategy.

  Args:
    name: "auto" (all GPUs, or else the CPU), "one_device" (the first GPU, or else the CPU), "mirrored" (all GPUs, or
      else all logical CPUs), "multi_worker" (all GPUs of all workers that TF_CONFIG, or else SLURM, names) or
      "tpu" (the one that this machine, or TPU_NAME, has).

  Returns:
    `tf.distribute.Strategy`. In a worker that is not the chief, nothing is written from now on.

  Raises:
    ValueError: unknown name, or the cluster is not described.
  """
  if name not in STRATEGIES:
    raise ValueError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}.")
  gpus = tf.config.list_physical_devices("GPU")
  for gpu in gpus:
    # Without it TensorFlow takes all memory of every GPU, used or not. Too late once a GPU was touched.
    tf.config.experimental.set_memory_growth(gpu, True)
  if name == "multi_worker":
    strategy = tf.distribute.MultiWorkerMirroredStrategy(_resolver())
    if not is_chief(strategy):
      files.only_pretend()
    return strategy
  if name == "tpu":
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
    return tf.distribute.TPUStrategy(resolver)
  if name == "one_device" or (name == "auto" and len(gpus) < 2):
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
  kind = "GPU" if gpus else "CPU"
  devices = [f"/{kind.lower()}:{i}" for i in range(len(tf.config.list_logical_devices(kind)))]
  # The default reduction allows one MirroredStrategy in a process; on CPU devices this one allows several.
  reduction = None if gpus else tf.distribute.ReductionToOneDevice()
  return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def is_chief(strategy):
  """Whether this process is the one that writes: the only one, or the first worker."""
  if not is_multi_worker(strategy):
    return True
  resolver = strategy.cluster_resolver
  return resolver.task_type == "chief" or resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def is_multi_worker(strategy):
  """Whether several processes take steps together."""
  return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def wait_for_all(strategy):
  """Returns when every worker has come here, so that what the chief wrote before is there for all."""
  if is_multi_worker(strategy):
    strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)


def _resolver():
  if "TF_CONFIG" in os.environ:
    try:
      found = json.loads(os.environ["TF_CONFIG"])
      found["cluster"]["worker"], found["task"]["type"]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"TF_CONFIG must be JSON with a cluster of workers and a task; got {os.environ['TF_CONFIG']!r}."
      ) from error
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()
  if "SLURM_PROCID" in os.environ:
    return tf.distribute.cluster_resolver.SlurmClusterResolver()
  raise ValueError(
    "--strategy=multi_worker needs the environment variable TF_CONFIG, or a job step of SLURM. On one machine, `python "
    "-m experiments.launch --workers=2 -- <script> <flags>` sets it."
  )
