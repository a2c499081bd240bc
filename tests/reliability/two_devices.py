"""Runs an experiment on two logical CPU devices, as `--strategy=mirrored` does on two GPUs.

python -m tests.reliability.two_devices experiments.svhn.q3 --strategy=mirrored
"""

import runpy
import sys

import tensorflow as tf

if __name__ == "__main__":
  cpu = tf.config.list_physical_devices("CPU")[0]
  tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
  del sys.argv[0]
  runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
