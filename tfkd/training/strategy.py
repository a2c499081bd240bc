"""Distribution strategies by name, and the role of this process in them."""

import json
import os
import sys

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "parameter_server", "tpu")


def make_strategy(name: str) -> tf.distribute.Strategy:
  """Makes a `tf.distribute` strategy.

  Args:
    name: one of `STRATEGIES`.
      "auto": all GPUs, or the CPU if there are none.
      "one_device": the first GPU, or the CPU if there are none.
      "mirrored": all GPUs, or all logical CPUs if there are no GPUs.
      "multi_worker": all GPUs of all workers in TF_CONFIG, or of the SLURM job step.
      "parameter_server": the workers in TF_CONFIG, which take steps asynchronously; its servers hold the variables.
      "tpu": the TPU of this machine, or the one named by TPU_NAME.

  Returns:
    The strategy. In a worker or server of "parameter_server" this function does not return: the process runs the
    functions that the chief sends until it is terminated.

  Raises:
    ValueError: the name is unknown, or the cluster is not described.
  """
  if name not in STRATEGIES:
    raise ValueError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}.")
  gpus = tf.config.list_physical_devices("GPU")
  for gpu in gpus:
    # Otherwise TensorFlow allocates all memory of all GPUs. This must precede the first use of a GPU.
    tf.config.experimental.set_memory_growth(gpu, True)
  if name == "multi_worker":
    return tf.distribute.MultiWorkerMirroredStrategy(_resolver())
  if name == "parameter_server":
    resolver = _resolver_of_servers()
    if resolver.task_type in ("worker", "ps"):
      _serve(resolver)
    return tf.distribute.ParameterServerStrategy(resolver)
  if name == "tpu":
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
    return tf.distribute.TPUStrategy(resolver)
  if name == "one_device" or (name == "auto" and len(gpus) < 2):
    # Without a GPU there is no other device to copy batches to; OneDeviceStrategy would copy them all the same.
    return tf.distribute.OneDeviceStrategy("/gpu:0") if gpus else tf.distribute.get_strategy()
  kind = "GPU" if gpus else "CPU"
  devices = [f"/{kind.lower()}:{i}" for i in range(len(tf.config.list_logical_devices(kind)))]
  # With the default reduction, a process can have only one MirroredStrategy; on CPU devices, this one allows several.
  reduction = None if gpus else tf.distribute.ReductionToOneDevice()
  return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
  """Returns whether this process writes files: the only process, the chief, or the first worker."""
  if not is_multi_worker(strategy):
    return True
  resolver = strategy.cluster_resolver
  return resolver.task_type == "chief" or resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
  """Returns whether several processes run this program and take every training step together."""
  return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_parameter_server(strategy: tf.distribute.Strategy) -> bool:
  """Returns whether this process sends steps to workers, which take them asynchronously."""
  return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def barrier(strategy: tf.distribute.Strategy) -> None:
  """Waits until all workers call this, so that all of them find the files that the chief wrote before."""
  if is_multi_worker(strategy):
    strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)


def _resolver():
  if "TF_CONFIG" in os.environ:
    return _from_tf_config("worker")
  if "SLURM_PROCID" in os.environ:
    return tf.distribute.cluster_resolver.SlurmClusterResolver()
  raise ValueError(
    "strategy=multi_worker needs the environment variable TF_CONFIG, or a job step of SLURM. On one machine, `python "
    "-m tfkd.training.launch --workers=2 -- <script> <flags>` sets it."
  )


def _resolver_of_servers():
  if "TF_CONFIG" not in os.environ:
    raise ValueError(
      "strategy=parameter_server needs the environment variable TF_CONFIG. On one machine, `python -m "
      "tfkd.training.launch --workers=2 -- <script> --strategy=parameter_server <flags>` sets it."
    )
  return _from_tf_config("chief", "worker", "ps")


def _from_tf_config(*jobs):
  try:
    found = json.loads(os.environ["TF_CONFIG"])
    missing = [job for job in jobs if not found["cluster"].get(job)]
    _ = found["task"]["type"], found["task"]["index"]
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"TF_CONFIG must be JSON with a cluster of workers and a task; got {os.environ['TF_CONFIG']!r}."
    ) from error
  if missing:
    raise ValueError(f"the cluster of TF_CONFIG must have {', '.join(jobs)}; it has no {' and no '.join(missing)}.")
  return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _serve(resolver):
  """Runs the functions that the chief sends. It does not return: a server runs until it is terminated."""
  server = tf.distribute.Server(
    resolver.cluster_spec(), resolver.task_type, resolver.task_id, protocol=resolver.rpc_layer or "grpc", start=True
  )
  server.join()
  sys.exit(0)
