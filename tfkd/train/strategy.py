"""Which devices and machines train: the only place that asks what there is."""

import json
import os

import tensorflow as tf
from absl import logging

from tfkd import files

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "parameter_server", "tpu")


def make_strategy(name):
  """Makes a `tf.distribute` strategy.

  Args:
    name: "auto" (all GPUs, or else the CPU), "one_device" (the first GPU, or else the CPU), "mirrored" (all GPUs, or
      else all logical CPUs), "multi_worker" (all GPUs of all workers that TF_CONFIG, or else SLURM, names),
      "parameter_server" (workers and parameter servers of TF_CONFIG; a process that is one of them serves, and does not
      return) or "tpu" (the one that this machine, or TPU_NAME, has).

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
  if name in ("multi_worker", "parameter_server"):
    return _of_cluster(name, _resolver(name))
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
  resolver = strategy.cluster_resolver
  # One machine has no resolver, or one without tasks. The coordinator of parameter servers is called chief.
  return resolver is None or resolver.task_type in (None, "", "chief") or (
    resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
  )  # fmt: skip


def is_multi_worker(strategy):
  """Whether several processes take steps together."""
  return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def wait_for_all(strategy):
  """Returns when every worker has come here, so that what the chief wrote before is there for all."""
  if is_multi_worker(strategy):
    strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)


def _resolver(name):
  if "TF_CONFIG" in os.environ:
    try:
      cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(f"TF_CONFIG must be JSON with 'cluster' and 'task'; got {os.environ['TF_CONFIG']!r}.") from error
    if name == "parameter_server" and not {"chief", "worker", "ps"} <= cluster.keys():
      raise ValueError(f"parameter_server needs a chief, workers and ps in TF_CONFIG; got {', '.join(cluster)}.")
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()
  if name == "multi_worker" and "SLURM_PROCID" in os.environ:
    return tf.distribute.cluster_resolver.SlurmClusterResolver()
  raise ValueError(
    f"--strategy={name} needs the environment variable TF_CONFIG, or a job step of SLURM. On one machine, `python -m "
    f"experiments.launch --workers=2 -- <script> <flags>` sets it."
  )


def _of_cluster(name, resolver):
  if name == "parameter_server":
    if resolver.task_type != "chief":
      logging.info("serving as %s %d", resolver.task_type, resolver.task_id)
      tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc"
      ).join()
    return tf.distribute.ParameterServerStrategy(resolver)
  strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
  if not is_chief(strategy):
    files.only_pretend()
  return strategy
