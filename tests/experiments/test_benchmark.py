"""Benchmarks compare the same networks and the same arithmetic, and check limits of the ratios that they name."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from experiments.benchmarks import limits, report, variants, whole_way
from experiments.benchmarks.other_frameworks import to_keras3, to_torch
from tests.distiller.small import SPARSE
from tests.experiments.scripts import run, run_briefly
from tfkd import Distiller, data, models
from tfkd.objectives import Hint, SoftTargets
from tfkd.ops.timing import Times

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (16, 32, 32, 3)).astype(np.uint8), np.arange(16) % 10
NETWORKS = ["svhn_cnnx0.25", "resnet8", "resnet18x0.0625"]


def _with_statistics(name):
  """Returns a network whose batch statistics differ from their initial values."""
  model = models.build(name)
  model(IMAGES / np.float32(255), training=True)
  return model


@pytest.mark.parametrize("name", NETWORKS)
def test_keras_3_gives_the_same_logits(name):
  model, x = _with_statistics(name), IMAGES / np.float32(255)
  np.testing.assert_allclose(to_keras3(model)(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_gives_the_same_logits(name):
  torch = pytest.importorskip("torch")
  model, x = _with_statistics(name), IMAGES / np.float32(255)
  with torch.no_grad():
    theirs = to_torch(model).eval()(torch.tensor(x.transpose(0, 3, 1, 2)))
  np.testing.assert_allclose(theirs, model(x), rtol=1e-3, atol=1e-4)


def test_other_layers_cannot_be_rebuilt():
  with pytest.raises(ValueError, match="is a DepthwiseConv2D: expected one of Conv2D, BatchNormalization"):
    to_keras3(models.build("wrn-16-1"))


@pytest.mark.end_to_end
@pytest.mark.parametrize("layers", [(), ("layer3",)])
def test_keras_3_and_tfkd_make_the_same_step(layers):
  teacher, student = _with_statistics("resnet20"), models.build("resnet8")
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
    # With a feature, Keras 3 runs the student twice, which updates the batch statistics twice.
    ours, other = (m.get_weights() for m in (layer, theirs.get_layer(layer.name)))
    for a, b in list(zip(ours, other, strict=True))[: 2 if layers else None]:
      np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)
  for a, b in zip(before, student.get_weights(), strict=True):
    moved += np.abs(a - b).max() > 1e-4
  assert moved > len(before) / 2


@pytest.mark.end_to_end
def test_pytorch_and_tfkd_make_the_same_step():
  torch = pytest.importorskip("torch")
  teacher, student = _with_statistics("resnet20"), models.build("resnet8")
  theirs = to_torch(student)
  # With a single batch, the order of the images does not matter.
  variants._torch_step(to_torch(teacher), theirs, IMAGES, LABELS, 16)()
  ours = Distiller(teacher, student, [SoftTargets(4.0, weight=0.5)], hard_loss_weight=0.5)
  ours.compile(keras.optimizers.SGD(0.01, momentum=0.9), SPARSE)
  ours.fit(data.batches(IMAGES, LABELS, 16, scale_pixels=True), verbose=0)
  x = IMAGES / np.float32(255)
  with torch.no_grad():
    logits = theirs.eval()(torch.tensor(x.transpose(0, 3, 1, 2)))
  # PyTorch's moving variance is the unbiased one.
  np.testing.assert_allclose(logits, student(x), rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(
  "kind, calls", [(variants.LABELS, 0), (variants.ONLINE, 1), (variants.HINTS, 1), (variants.CACHED, 0)]
)
def test_teacher_runs_once_per_online_step_and_never_in_others(kind, calls, monkeypatch):
  monkeypatch.setitem(variants.PAIRS, "tiny", ("svhn_cnnx0.125", "svhn_cnnx0.125", ("relu0", "relu6"), ("float",)))
  assert (kind, "float") in variants.names("tiny")
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
      layer.call = counted  # The first model is the teacher.
    made.append(model)
    return model

  made = []
  monkeypatch.setattr(variants.models, "build", build)
  step = variants.step("tiny", kind, "float", 16)
  run_teacher.clear()
  step()
  step()
  assert len(run_teacher) == 2 * calls


def test_limits_apply_to_medians_of_ratios_within_rounds():
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
  found = {m.name: (round(m.found, 3), m.holds) for m in limits.of_steps("a to b", times)}
  assert found == {
    "a to b, float: online / (labels + teacher forward)": (1.1, False),
    "a to b, float: online, 4 hints / (labels + teacher forward)": (1.0, True),
    "a to b, float: cached / labels": (1.0, True),
    "a to b, w8a8: online / (labels + teacher forward)": (1.0, True),
    "a to b, w8a8: online, 4 hints / (labels + teacher forward)": (1.0, True),
    "a to b, w8a8: cached / labels": (1.0, True),
    "a to b: labels, w8a8 / labels, float": (1.3, False),
  }


def test_step_rows_have_medians_and_ratios():
  times = {
    (variants.TEACHER, "float"): Times([1.0, 9.0, 1.0], [2.0, 2.0, 2.0]),
    (variants.LABELS, "float"): Times([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
    (variants.LABELS, "w8a8"): Times([2.0, 2.0, 4.0], [3.0, 9.0, 4.0]),
  }
  row = limits.step_row((variants.LABELS, "w8a8"), times, {(variants.LABELS, "w8a8"): 5.0})
  expected = {"kind": "labels", "scheme": "w8a8", "mib": 5.0, "wall": 2.0, "cpu": 4.0, "ratio": pytest.approx(2 / 3)}
  assert row == expected
  assert limits.step_row((variants.TEACHER, "float"), times, {})["scheme"] == "–"
  assert np.isnan(limits.step_row((variants.LABELS, "w8a8"), {}, {})["ratio"])


def test_sweep_limits_are_medians_over_rounds_and_over_pairs_of_students():
  rounds = [
    {"labels": [10.0, 2.0, 2.0], "temperatures": [11.0, 3.0, 4.0]},
    {"labels": [8.0, 1.0, 1.0], "temperatures": [6.0, 1.0, 1.0]},
    {"labels": [8.0, 1.0, 1.0], "temperatures": [8.0, 1.0, 1.1]},
  ]
  sweep, student = limits.of_sweeps(rounds)
  assert (sweep.found, sweep.holds) == (pytest.approx(1.01), True)
  assert (student.found, student.holds) == (pytest.approx(1.0), True)
  assert not limits.of_sweeps(rounds[:1])[0].holds and not limits.of_sweeps(rounds[:1])[1].holds


@pytest.mark.parametrize("epochs", [2, 5, 6])
def test_all_ways_to_a_file_train_equally_many_epochs(epochs):
  for way in whole_way._ways():
    float_epochs, quantized_epochs = whole_way.stages(way, epochs)
    assert float_epochs + quantized_epochs == epochs
    assert (quantized_epochs > 0) == (way in (whole_way.ONLINE, whole_way.CACHED))
  rates = [whole_way.learning_rate(epoch, epochs) for epoch in range(epochs)]
  assert rates[0] == 0.05 and rates == sorted(rates, reverse=True) and rates[-1] > 0


def test_the_whole_way_report_has_medians_ratios_and_stages():
  def run(training, accuracy, size):
    return {
      "training": training, "export": 1.0, "network_accuracy": 0.5, "file_accuracy": accuracy, "bytes": size,
    }  # fmt: skip

  measured = {
    "setting": whole_way.Setting("a", "b", 5, 1, 2000, 500, 32, 3),
    "teacher_accuracy": 0.9,
    "ways": {
      whole_way.ONLINE: [run(9.0, 0.25, 1000), run(19.0, 0.75, 1002), run(9.0, 0.5, 1001)],
      variants.KERAS: [run(19.0, 0.25, 900), run(19.0, 0.25, 900), run(19.0, 0.25, 900)],
      variants.TORCH: [run(4.0, None, None)] * 3,
    },
  }
  text = whole_way.describe(measured)
  assert "| tfkd, online | 3 + 2 | 10.0 | 1.0 | 1.00 | 50.00 ± 0.00 | 50.00 ± 25.00 | 1,001 |" in text
  assert "| Keras 3 | 5 + 0 | 20.0 | 1.0 | 2.00 | 50.00 ± 0.00 | 25.00 ± 0.00 | 900 |" in text
  assert "| PyTorch | 5 + 0 | 5.0 | – | 0.50 | 50.00 ± 0.00 | no file | no file |" in text
  assert "no exporter to TFLite is installed" in text or "does not use" in text


def test_the_report_marks_exceeded_limits(tmp_path):
  row = {"kind": "online", "scheme": "w8a8", "wall": 0.0123, "cpu": 0.0201, "ratio": 1.04, "mib": 812.4}
  text = report.write_report(
    str(tmp_path), "Steps", {"a to b": [row], "c to d": [row | {"mib": None}]}, {}, [limits.at_most("x / y", 1.3, 1.2)]
  )
  assert "| online | w8a8 | 12.3 | 20.1 | 1.04 | 812 |" in text and "| x / y | 1.300 | <= 1.20 | **no** |" in text
  assert (tmp_path / "steps.png").stat().st_size > 10_000 and (tmp_path / "report.md").exists()


@pytest.mark.end_to_end
def test_the_command_measures_the_whole_way(tmp_path):
  sizes = ("--way_train=256", "--way_test=64", "--parts=whole_way", "--batch_size=128")
  result = run("benchmarks", tmp_path, "--preset=quick", "--workdir=out", *sizes)
  assert result.returncode == 0, result.stderr
  text = (tmp_path / "out" / "report.md").read_text()
  assert text in result.stdout
  cells = {
    row[1].strip(): [cell.strip() for cell in row[2:]] for line in text.splitlines() if len(row := line.split("|")) > 8
  }
  assert cells["tfkd, online"][0] == cells["tfkd, cached"][0] == "1 + 1" and cells["Keras 3"][0] == "2 + 0"
  for way in ("tfkd, online", "tfkd, cached", "Keras 3"):
    assert float(cells[way][1]) > 0 and int(cells[way][6].replace(",", "")) > 10_000


@pytest.mark.parametrize(
  "benchmark, flag", [("suite", "way_epochs"), ("step_cost", "batch_sizes"), ("throughput", "images")]
)
def test_the_command_lists_the_flags_of_each_benchmark(benchmark, flag, tmp_path):
  result = run_briefly("benchmarks", tmp_path, benchmark, "--help")
  assert f"--{flag}:" in result.stdout and "--batch_size:" in result.stdout


def test_too_few_images_are_refused_without_a_traceback(tmp_path):
  result = run_briefly("benchmark.run", tmp_path, "--preset=quick", "--parts=whole_way", "--way_train=64")
  assert result.returncode == 1 and "Traceback" not in result.stderr
  assert "--way_train is 64, but --batch_size is 128" in result.stderr
