"""Fixtures for all tests: four logical CPUs, fixed seeds, small models and data."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

# Before TensorFlow's first operation: replicas are shown on logical CPU devices.
_cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
tf.config.threading.set_inter_op_parallelism_threads(2)
# One process for each core runs tests: more threads wait for each other.
tf.config.threading.set_intra_op_parallelism_threads(1)
# Most graphs run a few times: optimizing them would take longer than it saves.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def _seed():
  keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def no_trial_conversion():
  """Leaves out the trial conversion of `quantize`, for modules that convert the students or do not export them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("tfkd.quantization._quantize.check_export", lambda *args, **kwargs: None)
    yield


@pytest.fixture(scope="module")
def run_eagerly():
  """Runs every `tf.function` and Keras step as Python, which costs less than tracing where a test takes few steps."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


@pytest.fixture
def two_replicas():
  return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())


@pytest.fixture
def vectors():
  """Inputs [24, 6] and labels in 0..3 that a linear model can learn in part."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(24, 6)).astype(np.float32)
  return x, (x @ rng.normal(size=(6, 4)) + rng.normal(size=(24, 4))).argmax(axis=1)


@pytest.fixture(scope="session")
def images_once():
  """Images [64, 32, 32, 3] in [0, 1] and labels in 0..9 that determine the brightness; tests must not change them."""
  rng = np.random.default_rng(0)
  y = rng.integers(0, 10, 64)
  x = np.clip(rng.uniform(0, 0.2, (64, 32, 32, 3)) + y[:, None, None, None] / 12, 0, 1)
  return x.astype(np.float32), y


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """A directory of drawn house numbers, 96 for training and 40 for testing."""
  from tfkd.data import house_numbers

  directory = tmp_path_factory.mktemp("data")
  house_numbers.write(directory, sizes={"train": 96, "test": 40})
  return str(directory)


@pytest.fixture
def images(images_once):
  """A copy of `images_once` for one test."""
  x, y = images_once
  return x.copy(), y.copy()
