"""Pruned students keep their zeros in distillation, wrapped for pruning or not."""

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfkd
from tfkd import Distiller, objectives, quantization
from tfkd.training.checkpoints import Checkpoints

layers, sparsity = keras.layers, tfmot.sparsity.keras
RNG = np.random.default_rng(0)
X, Y = RNG.random((16, 6, 6, 3), np.float32), RNG.integers(0, 3, 16)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _model(width=4, nested=False):
  convolution = layers.Conv2D(width, 3, name="conv")
  body = keras.Sequential([keras.Input((6, 6, 3)), convolution, layers.LeakyReLU(name="active")])
  inputs = keras.Input((6, 6, 3))
  features = body(inputs) if nested else body.layers[1](body.layers[0](inputs))
  return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flat")(features)))


def _pruned(share=0.5, **options):
  rng, model = np.random.default_rng(1), _model(**options)
  model.set_weights([np.where(rng.random(w.shape) < share, 0, w) if w.ndim > 1 else w for w in model.get_weights()])
  return model


def _kernels(model):
  return [v.numpy() for v in model.trainable_variables if v.shape.rank > 1]


def _fit(student, optimizer="adam", callbacks=(), epochs=2, jit_compile=False, **options):
  distiller = Distiller(_model(8), student, [objectives.SoftTargets(temperature=2.0)], **options)
  distiller.compile(optimizer, LOSS, jit_compile=jit_compile)
  distiller.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))
  return distiller


def _assert_kept(student, before):
  for found, kernel in zip(_kernels(student), before, strict=True):
    np.testing.assert_array_equal(found == 0, kernel == 0)
    assert np.mean(found[kernel != 0] != kernel[kernel != 0]) > 0.9
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("nested", [False, True])
def test_float_students_keep_zeros_until_the_option_is_off(nested, caplog):
  student = _pruned(nested=nested)
  before = _kernels(student)
  optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True)
  distiller = _fit(student, optimizer)
  _assert_kept(student, before)
  (line,) = [r.getMessage() for r in caplog.records if "zeros" in r.getMessage()]
  assert f"conv/kernel ({np.mean(before[0] == 0):.0%}), head/kernel ({np.mean(before[1] == 0):.0%})" in line
  distiller.fit(X, Y, epochs=1, verbose=0)
  _assert_kept(student, before)
  distiller.keep_zeros = False
  distiller.fit(X, Y, epochs=1, verbose=0)
  assert all(np.mean(kernel == 0) < 0.1 for kernel in _kernels(student))


def test_each_fit_reads_the_zeros_again():
  student = _pruned(0.3)
  distiller = _fit(student)
  further = [np.where(RNG.random(w.shape) < 0.5, 0, w) if w.ndim > 1 else w for w in student.get_weights()]
  student.set_weights(further)
  before = _kernels(student)
  distiller.fit(X, Y, epochs=1, verbose=0)
  _assert_kept(student, before)
  student.set_weights([np.full_like(w, 0.1) for w in further])
  distiller.fit(X, Y, epochs=1, verbose=0)
  assert all(np.all(kernel != 0) for kernel in _kernels(student))


def test_single_batches_and_loaded_distillers_keep_zeros(tmp_path):
  student = _pruned()
  before = _kernels(student)
  distiller = Distiller(None, student)
  distiller.compile("sgd", LOSS)
  distiller.train_on_batch(X, Y)
  _assert_kept(student, before)
  distiller.save(tmp_path / "distiller.keras")
  loaded = keras.models.load_model(tmp_path / "distiller.keras")
  before = _kernels(loaded.student)
  loaded.fit(X, Y, verbose=0)
  _assert_kept(loaded.student, before)


def test_replicas_keep_zeros(two_replicas):
  with two_replicas.scope():
    student = _pruned()
    before = _kernels(student)
    _fit(student)
  _assert_kept(student, before)
  for variable in student.trainable_variables:
    np.testing.assert_array_equal(variable.values[0], variable.values[1])


@pytest.mark.parametrize("quantized", [False, True])
def test_compiled_steps_keep_zeros(quantized):
  student = _pruned()
  student = quantization.quantize(student, "w8a8", calibration_data=X) if quantized else student
  before = _kernels(student)
  _fit(student, "sgd", jit_compile=True)
  _assert_kept(student, before)


def test_half_precision_students_and_legacy_optimizers_keep_zeros():
  keras.mixed_precision.set_global_policy("mixed_bfloat16")
  try:
    student = _pruned()
  finally:
    keras.mixed_precision.set_global_policy("float32")
  before = _kernels(student)
  _fit(student, keras.optimizers.legacy.SGD(0.1, momentum=0.9))
  _assert_kept(student, before)


def test_quantized_students_follow_quantize():
  for keep in (True, False):
    student = quantization.quantize(_pruned(), "w8a8", calibration_data=X, keep_zeros=keep)
    before = [np.mean(kernel == 0) for kernel in _kernels(student)]
    _fit(student)
    after = [np.mean(kernel == 0) for kernel in _kernels(student)]
    assert after == before if keep else max(after) < 0.1 < min(before)


def test_float_layers_of_quantized_students_keep_zeros_of_moving_averages():
  student = quantization.quantize(_pruned(), "w8a8", calibration_data=X, float_layers=["head"])
  before = _kernels(student)
  _fit(student, keras.optimizers.Adam(0.01, use_ema=True))
  _assert_kept(student, before)


def test_resumed_students_keep_zeros(tmp_path):
  for quantized in (False, True):
    distillers = []
    for _ in range(2):
      student = quantization.quantize(_pruned(), "w8a8", calibration_data=X) if quantized else _pruned()
      distiller = Distiller(None, student)
      distiller.compile("adam", LOSS)
      distillers.append(distiller)
    first, second = distillers
    before = _kernels(first.student)
    first.fit(X, Y, verbose=0)
    Checkpoints(first, str(tmp_path / str(quantized)), epochs=2, steps=1).save()
    restored = Checkpoints(second, str(tmp_path / str(quantized)), epochs=2, steps=1)
    restored.restore(lambda distiller=second: distiller.train_on_batch(X, Y))
    np.testing.assert_array_equal(_kernels(second.student)[0], _kernels(first.student)[0])
    second.fit(X, Y, verbose=0)
    _assert_kept(second.student, before)


@pytest.mark.parametrize("nested", [False, True])
def test_students_in_wrappers_of_pruning_are_pruned_and_stripped(nested):
  wrapped = sparsity.prune_low_magnitude(
    _model(nested=nested), pruning_schedule=sparsity.PolynomialDecay(0.2, 0.75, 0, 3, frequency=1)
  )
  name = "conv" if not nested else f"{wrapped.layers[1].name}/conv"
  assert name in tfkd.taps.tappable(wrapped)
  hint = objectives.Hint("conv", "conv", connector="project")
  distiller = Distiller(_model(8), wrapped, [hint])
  distiller.compile(keras.optimizers.Adam(0.01), LOSS)
  distiller.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
  distiller.fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
  stripped = sparsity.strip_pruning(wrapped)
  before = _kernels(stripped)
  assert all(abs(np.mean(kernel == 0) - 0.75) < 0.02 for kernel in before)
  _fit(stripped, keras.optimizers.Adam(0.01))
  _assert_kept(stripped, before)
