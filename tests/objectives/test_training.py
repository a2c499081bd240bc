"""Every objective trains a float and a quantized student through `fit`, and survives saving."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.objectives.rows import ROWS, WIDTHS, cnn
from tfkd import quantization

EACH = pytest.mark.parametrize("case", ROWS)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def data():
  """Images [32, 8, 8, 3] whose class shows in colour and brightness."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 4, 32)
  colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
  images = 0.3 * rng.uniform(size=(32, 8, 8, 3)) + 0.5 * colours[labels][:, None, None, :]
  return images.astype(np.float32), labels


@pytest.fixture(scope="module")
def teacher(data):
  keras.utils.set_random_seed(1)
  model = cnn(WIDTHS[0], "teacher")
  model.compile(keras.optimizers.Adam(0.01), SPARSE)
  model.fit(*data, batch_size=16, epochs=10, verbose=0)
  return model


def _student(kind, data):
  model = cnn(WIDTHS[1], "student")
  return quantization.quantize(model, "w8a8", calibration_data=data[0]) if kind == "w8a8" else model


@pytest.mark.parametrize("kind", ["float", "w8a8"])
@EACH
def test_lowers_its_own_loss_and_goes_on_after_loading(case, kind, data, teacher, tmp_path):
  student = _student(kind, data)
  objective = ROWS[case].make()
  distiller = tfkd.Distiller(teacher, student, [objective], hard_loss_weight=0.0)
  distiller.compile(keras.optimizers.Adam(0.01), SPARSE)
  frozen = teacher.get_weights()
  fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
  losses = distiller.fit(*data, epochs=4, **fit).history[objective.name]
  assert losses[-1] < losses[0]
  assert np.isfinite(losses).all()
  for old, new in zip(frozen, teacher.get_weights(), strict=True):
    np.testing.assert_array_equal(old, new)
  ours = {id(v) for v in distiller.trainable_variables}
  assert not {id(v) for v in distiller.variables} & {id(v) for v in teacher.variables}
  assert ours == {id(v) for v in (*student.trainable_variables, *objective.trainable_variables)}

  distiller.save(tmp_path / "distiller.keras")
  loaded = keras.models.load_model(tmp_path / "distiller.keras")
  loaded.teacher = teacher
  np.testing.assert_allclose(
    loaded.evaluate(*data, batch_size=16, verbose=0), distiller.evaluate(*data, batch_size=16, verbose=0), rtol=1e-5
  )
  again = [model.fit(*data, epochs=1, **fit).history["loss"] for model in (distiller, loaded)]
  np.testing.assert_allclose(*again, rtol=1e-4)

  quantization.save(student, tmp_path / "student.keras")
  assert quantization.load(tmp_path / "student.keras").count_params() == student.count_params()


@EACH
def test_examples_of_weight_zero_do_not_count(case, data, teacher):
  images, labels = data
  distiller = tfkd.Distiller(teacher, _student("float", data), [ROWS[case].make()])
  distiller.compile(keras.optimizers.SGD(1e-3), SPARSE)
  weights = np.repeat([1.0, 0.0], 16).astype(np.float32)
  kept = distiller.test_on_batch(images[:16], labels[:16], return_dict=True)["loss"]
  weighted = distiller.test_on_batch(images, labels, sample_weight=weights, return_dict=True)["loss"]
  np.testing.assert_allclose(weighted, kept / 2, rtol=1e-4)  # Keras' mean is over all examples.
  before = distiller.student.get_weights()[0]
  distiller.train_on_batch(images, labels, sample_weight=0 * weights)
  np.testing.assert_array_equal(before, distiller.student.get_weights()[0])


@EACH
def test_two_replicas_compare_their_own_share_of_the_batch(case, data, teacher, two_replicas):
  # A term of each example is the mean over all of them; a relational one the mean of the replicas' own.
  images, labels = data

  def made():
    keras.utils.set_random_seed(3)
    student, objective = _student("float", data), ROWS[case].make()
    distiller = tfkd.Distiller(teacher, student, [objective], hard_loss_weight=0.5)
    distiller.compile(keras.optimizers.SGD(1e-3), SPARSE)
    return distiller

  one = made()
  if one.objectives[0].relational:
    halves = [one.test_on_batch(images[i], labels[i], return_dict=True) for i in (slice(0, 16), slice(16, 32))]
    expected = np.mean([half["loss"] for half in halves])
  else:
    expected = one.test_on_batch(images, labels, return_dict=True)["loss"]
  with two_replicas.scope():
    two = made()
  batch = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)
  np.testing.assert_allclose(two.evaluate(batch, verbose=0, return_dict=True)["loss"], expected, rtol=1e-4)
  losses = two.fit(batch, epochs=3, verbose=0).history["loss"]
  assert np.isfinite(losses).all()
