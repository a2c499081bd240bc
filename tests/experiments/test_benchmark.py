"""The benchmark times what it says: the same networks, the same arithmetic, and promises of the right ratios."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from experiments.benchmarks import report, steps, variants
from experiments.benchmarks.other_frameworks import to_keras3, to_torch
from tests.distiller.small import SPARSE
from tfkd import Distiller, data, models
from tfkd.objectives import Hint, SoftTargets
from tfkd.ops.timing import Times

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (16, 32, 32, 3)).astype(np.uint8), np.arange(16) % 10
NETWORKS = ["svhn_cnnx0.25", "resnet8", "resnet18x0.0625"]


def _trained_a_little(name):
  """A network whose statistics are not those that it began with."""
  model = models.build(name)
  model.compile(keras.optimizers.SGD(0.01), SPARSE)
  model.fit(data.batches(IMAGES, LABELS, 16, scale_pixels=True), verbose=0)
  return model


@pytest.mark.parametrize("name", NETWORKS)
def test_keras_3_gives_the_same_logits(name):
  model, x = _trained_a_little(name), IMAGES / np.float32(255)
  np.testing.assert_allclose(to_keras3(model)(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_gives_the_same_logits(name):
  torch = pytest.importorskip("torch")
  model, x = _trained_a_little(name), IMAGES / np.float32(255)
  with torch.no_grad():
    theirs = to_torch(model).eval()(torch.tensor(x.transpose(0, 3, 1, 2)))
  np.testing.assert_allclose(theirs, model(x), rtol=1e-3, atol=1e-4)


def test_other_layers_cannot_be_rebuilt():
  with pytest.raises(ValueError, match="is a DepthwiseConv2D: expected one of Conv2D, BatchNormalization"):
    to_keras3(models.build("wrn-16-1"))


@pytest.mark.parametrize("layers", [(), ("layer3",)])
def test_keras_3_takes_the_step_that_ours_takes(layers):
  teacher, student = _trained_a_little("resnet20"), models.build("resnet8")
  theirs = to_keras3(student)
  batches = data.batches(IMAGES, LABELS, 16, scale_pixels=True)
  variants._keras3_step(to_keras3(teacher), theirs, layers, iter(batches))()
  objectives = [SoftTargets(4.0, weight=0.5, form="kl")] + [Hint(layer, layer, weight=0.5) for layer in layers]
  ours = Distiller(teacher, student, objectives, hard_loss_weight=0.5)
  ours.compile(keras.optimizers.SGD(0.01, momentum=0.9), SPARSE)
  before = [w.copy() for w in student.get_weights()]
  ours.fit(batches, verbose=0)
  moved = 0
  for layer in student.layers:
    # With a feature Keras 3 runs the student twice, and moves the statistics of its batch normalisation twice.
    ours, other = (m.get_weights() for m in (layer, theirs.get_layer(layer.name)))
    for a, b in list(zip(ours, other, strict=True))[: 2 if layers else None]:
      np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)
  for a, b in zip(before, student.get_weights(), strict=True):
    moved += np.abs(a - b).max() > 1e-4
  assert moved > len(before) / 2


def test_pytorch_takes_the_step_that_ours_takes():
  torch = pytest.importorskip("torch")
  teacher, student = _trained_a_little("resnet20"), models.build("resnet8")
  theirs = to_torch(student)
  # One batch: its order does not matter.
  variants._torch_step(to_torch(teacher), theirs, IMAGES, LABELS, 16)()
  ours = Distiller(teacher, student, [SoftTargets(4.0, weight=0.5)], hard_loss_weight=0.5)
  ours.compile(keras.optimizers.SGD(0.01, momentum=0.9), SPARSE)
  ours.fit(data.batches(IMAGES, LABELS, 16, scale_pixels=True), verbose=0)
  x = IMAGES / np.float32(255)
  with torch.no_grad():
    logits = theirs.eval()(torch.tensor(x.transpose(0, 3, 1, 2)))
  # PyTorch's moving variance is of n - 1.
  np.testing.assert_allclose(logits, student(x), rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(
  "what, calls", [(variants.LABELS, 0), (variants.ONLINE, 1), (variants.HINTS, 1), (variants.CACHED, 0)]
)
def test_each_variant_runs_the_teacher_as_often_as_it_says(what, calls, monkeypatch):
  monkeypatch.setitem(variants.PAIRS, "tiny", ("svhn_cnnx0.125", "svhn_cnnx0.125", ("relu0", "relu6"), ("float",)))
  assert (what, "float") in variants.names("tiny")
  run_teacher = []
  original = variants.models.build

  def build(name):
    model = original(name)
    layer = model.get_layer("conv0")
    call = layer.call

    def counted(x):
      with tf.control_dependencies([tf.numpy_function(lambda: run_teacher.append(model) or np.int32(0), [], tf.int32)]):
        return tf.identity(call(x))

    if not made:
      layer.call = counted  # Of the first model built, the teacher.
    made.append(model)
    return model

  made = []
  monkeypatch.setattr(variants.models, "build", build)
  step = variants.step("tiny", what, "float", 16)
  run_teacher.clear()
  step()
  step()
  assert len(run_teacher) == 2 * calls


def test_promises_are_of_the_ratios_that_they_name():
  times = {
    (variants.TEACHER, "float"): Times([1.0, 9.0, 1.0], []),
    (variants.LABELS, "float"): Times([2.0, 2.0, 2.0], []),
    (variants.ONLINE, "float"): Times([3.3, 1.0, 3.3], []),
    (variants.HINTS, "float"): Times([3.0, 11.0, 3.0], []),
    (variants.CACHED, "float"): Times([2.0, 9.0, 2.0], []),
    (variants.LABELS, "w8a8"): Times([2.6, 1.0, 2.6], []),
    (variants.ONLINE, "w8a8"): Times([3.6, 10.0, 3.6], []),
    (variants.HINTS, "w8a8"): Times([3.6, 10.0, 3.6], []),
    (variants.CACHED, "w8a8"): Times([2.6, 10.0, 2.6], []),
  }
  found = {what: (round(value, 3), kept) for what, value, _, kept in steps._step_promises("a to b", times)}
  assert found == {
    "a to b, float: online / (labels + teacher forward)": (1.1, False),
    "a to b, float: online, 4 hints / (labels + teacher forward)": (1.0, True),
    "a to b, float: cached / labels": (1.0, True),
    "a to b, w8a8: online / (labels + teacher forward)": (1.0, True),
    "a to b, w8a8: online, 4 hints / (labels + teacher forward)": (1.0, True),
    "a to b, w8a8: cached / labels": (1.0, True),
    "a to b: labels, w8a8 / labels, float": (1.3, False),
  }


def test_the_report_names_what_is_not_kept(tmp_path):
  row = {"what": "online", "scheme": "w8a8", "wall": 0.0123, "cpu": 0.0201, "ratio": 1.04, "mib": 812.4}
  text = report.write_report(
    str(tmp_path), "Steps", {"a to b": [row], "c to d": [row | {"mib": None}]}, [("x / y", 1.3, "<= 1.20", False)]
  )
  assert "| online | w8a8 | 12.3 | 20.1 | 1.04 | 812 |" in text and "| x / y | 1.300 | <= 1.20 | **no** |" in text
  assert (tmp_path / "steps.png").stat().st_size > 10_000 and (tmp_path / "report.md").exists()
