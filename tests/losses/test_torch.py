"""Losses against PyTorch's operations, composed as in the methods' PyTorch code; skipped without PyTorch."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.losses.cases import CASES
from tfkd import losses, objectives
from tfkd.features import connectors
from tfkd.ops.pooling import average_pool

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(2, 16, 10)).astype(np.float32)
LABELS = RNG.integers(0, 10, 16)
MAPS = RNG.normal(size=(2, 16, 8, 8, 6)).astype(np.float32)
EMBEDDINGS = RNG.normal(size=(2, 16, 12)).astype(np.float32)


COUNTERPARTS = {
  "soft_target_kl",
  "decoupled",
  "dist",
  "hint",
  "attention_transfer",
  "similarity_preserving",
  "inter_channel_correlation",
  "hierarchical_context",
  "rkd_distance",
  "rkd_angle",
  "probabilistic_transfer",
}


def test_rows_name_the_losses_compared_with_pytorch():
  assert {name for name, case in CASES.items() if case.torch} == COUNTERPARTS


def _maps():
  return [torch.tensor(x).permute(0, 3, 1, 2) for x in MAPS]


def _agrees(ours, expected):
  np.testing.assert_allclose(np.mean(ours), float(expected), rtol=1e-3)


def test_soft_targets():
  t, s = map(torch.tensor, LOGITS)
  expected = F.kl_div(F.log_softmax(s / 4, 1), F.softmax(t / 4, 1), reduction="batchmean")
  _agrees(losses.soft_target_kl(*LOGITS, 4.0), expected)


def test_decoupled():
  t, s = map(torch.tensor, LOGITS)
  y = torch.tensor(LABELS)
  one_hot = F.one_hot(y, 10).bool()
  p, q = F.softmax(t / 4, 1), F.softmax(s / 4, 1)
  binary = [torch.stack([x[one_hot], 1 - x[one_hot]], 1) for x in (p, q)]
  target = F.kl_div(binary[1].log(), binary[0], reduction="batchmean")
  others = [F.log_softmax(x / 4 - 1000 * one_hot, 1) for x in (t, s)]
  rest = F.kl_div(others[1], others[0], reduction="batchmean", log_target=True)
  _agrees(losses.decoupled(*LOGITS, LABELS), 16 * (target + 8 * rest))


def test_dist():
  p, q = (F.softmax(torch.tensor(x), 1) for x in LOGITS)

  def relation(a, b):
    return 1 - F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), eps=1e-8).mean()

  _agrees(losses.dist(*LOGITS), relation(p, q) + relation(p.T, q.T))


def test_standardized_logits():
  x = torch.tensor(LOGITS[0])
  expected = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)
  np.testing.assert_allclose(losses.standardize_logits(LOGITS[0]), expected, rtol=1e-3, atol=1e-6)


def test_hint():
  _agrees(losses.hint(*MAPS), F.mse_loss(*_maps()))


def test_attention():
  t, s = (F.normalize(x.pow(2).mean(1).flatten(1)) for x in _maps())
  _agrees(losses.attention_transfer(*MAPS), (t - s).pow(2).mean())


def test_similarity():
  t, s = (x.flatten(1) for x in _maps())
  t, s = F.normalize(t @ t.T), F.normalize(s @ s.T)
  _agrees(losses.similarity_preserving(*MAPS), (t - s).pow(2).sum() / 16**2)


def test_channel_correlation():
  t, s = (x.flatten(2) for x in _maps())
  t, s = (F.normalize(x @ x.transpose(1, 2), dim=2) for x in (t, s))
  _agrees(losses.inter_channel_correlation(*MAPS), (t - s).pow(2).sum() / (6 * 16))


def test_hierarchical_context():
  t, s = _maps()
  loss, weight, total = F.mse_loss(s, t), 1.0, 1.0
  for side in (4, 2, 1):
    weight, total = weight / 2, total + weight / 2
    loss += weight * F.mse_loss(F.adaptive_avg_pool2d(s, side), F.adaptive_avg_pool2d(t, side))
  _agrees(losses.hierarchical_context(*MAPS), loss / total)


@pytest.mark.parametrize("size", [(3, 5), (8, 8), (1, 7)])
def test_adaptive_pooling(size):
  expected = F.adaptive_avg_pool2d(_maps()[0], size).permute(0, 2, 3, 1)
  np.testing.assert_allclose(average_pool(MAPS[0], size), expected, rtol=1e-4, atol=1e-6)


def test_rkd():
  t, s = map(torch.tensor, EMBEDDINGS)
  distances = [torch.cdist(x, x) for x in (t, s)]
  _agrees(losses.rkd_distance(*EMBEDDINGS), F.smooth_l1_loss(*(d / d[d > 0].mean() for d in distances)))
  angles = []
  for x in (t, s):
    e = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), p=2, dim=2)
    angles.append(torch.bmm(e, e.transpose(1, 2)).flatten())
  _agrees(losses.rkd_angle(*EMBEDDINGS), F.smooth_l1_loss(*angles))


def test_probabilistic_transfer():
  kernels = []
  for x in map(torch.tensor, EMBEDDINGS):
    cosines = (F.normalize(x) @ F.normalize(x).T + 1) / 2
    kernels.append(cosines / cosines.sum(1, keepdim=True))
  t, s = kernels
  _agrees(losses.probabilistic_transfer(*EMBEDDINGS), (t * ((t + 1e-7) / (s + 1e-7)).log()).mean())


def _parameter(values):
  """A kernel [height, width, in, out] as PyTorch's [out, in, height, width]."""
  return torch.tensor(np.transpose(values, [3, 2, 0, 1]))


def _tensor(feature):
  return torch.tensor(feature).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(3, 5), (8, 8), (16, 24), (11, 4), (1, 1)])
def test_nearest_neighbours(size):
  ours = connectors.nearest(MAPS[0], size)
  np.testing.assert_array_equal(ours, F.interpolate(_maps()[0], size).permute(0, 2, 3, 1))


@pytest.mark.parametrize("scale", [1.0, 3e-3], ids=["plain", "small"])
def test_a_connector_with_batch_normalisation_in_training(scale):
  # With small features epsilon matters: the default of Keras, 1e-3, would change the values by a factor of ten.
  x = np.float32(scale) * MAPS[0]
  ours = connectors.connector("project_bn", 5)
  y = ours(x, training=True)
  convolution = torch.nn.Conv2d(6, 5, 1, bias=False)
  convolution.weight.data = _parameter(ours.layers[0].get_weights()[0][None, None])
  normalization = torch.nn.BatchNorm2d(5)
  expected = normalization.train()(convolution(_tensor(x))).detach().permute(0, 2, 3, 1)
  np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)
  mean, variance = ours.layers[1].get_weights()[2:]
  np.testing.assert_allclose(mean, normalization.running_mean, rtol=1e-3, atol=1e-6)
  np.testing.assert_allclose(variance, normalization.running_var, rtol=1e-3, atol=1e-6)


def test_simple_recipe_in_training():
  student, teacher = 3e-3 * EMBEDDINGS[0], 3e-3 * EMBEDDINGS[1, :, :8]
  objective = objectives.SRD("a", "a")
  value = objective(([tf.constant(teacher)], [tf.constant(student)]), training=True)
  kernel, bias = objective.connectors[0].get_weights()
  t, s = (torch.nn.BatchNorm1d(8, affine=False)(torch.tensor(x)) for x in (teacher, student @ kernel + bias))
  np.testing.assert_allclose(value, (t - s).abs().pow(4).sum().log(), rtol=1e-3)


@pytest.mark.parametrize("student_sizes", [(8, 4, 2), (7, 5, 3), (3, 8, 4)], ids=str)
def test_knowledge_review_in_training(student_sizes):
  """Attention-based fusion, resized by nearest neighbour before the last convolution, and its gradient."""
  teacher_sizes, channels = (8, 4, 4), (5, 6, 7)
  teachers = [RNG.normal(size=(4, n, n, c)).astype(np.float32) for n, c in zip(teacher_sizes, channels, strict=True)]
  students = [RNG.normal(size=(4, n, n, 3)).astype(np.float32) for n in student_sizes]
  objective = objectives.ReviewKD(["a", "b", "c"], ["a", "b", "c"])
  ours = [tf.Variable(x) for x in students]
  with tf.GradientTape() as tape:
    value = tf.reduce_mean(objective(([tf.constant(x) for x in teachers], ours), training=True))

  def normalized(x, layer, padding=0):
    x = F.conv2d(x, _parameter(layer.layers[0].get_weights()[0]), padding=padding)
    return F.batch_norm(x, None, None, training=True)  # PyTorch's epsilon is 1e-5.

  expected = [_tensor(x).requires_grad_() for x in students]
  total, later = 0.0, None
  for i in (2, 1, 0):
    x = normalized(expected[i], objective.entries[i])
    if later is not None:
      later = F.interpolate(later, x.shape[2:], mode="nearest")
      kernel, bias = objective.attentions[i].get_weights()
      z = torch.sigmoid(F.conv2d(torch.cat([x, later], 1), _parameter(kernel), torch.tensor(bias)))
      x = x * z[:, :1] + later * z[:, 1:]
    later = x
    out = normalized(F.interpolate(x, (teacher_sizes[i],) * 2, mode="nearest"), objective.exits[i], padding=1)
    target = _tensor(teachers[i])
    loss, weight, divisor = F.mse_loss(out, target), 1.0, 1.0
    for side in (4, 2, 1):
      if side < teacher_sizes[i]:
        weight, divisor = weight / 2, divisor + weight / 2
        loss += weight * F.mse_loss(*(F.adaptive_avg_pool2d(y, side) for y in (out, target)))
    total += loss / divisor
  total.backward()
  np.testing.assert_allclose(value, total.item(), rtol=1e-5)
  for gradient, x in zip(tape.gradient(value, ours), expected, strict=True):
    np.testing.assert_allclose(gradient, x.grad.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-6)


def test_simkd_projectors_have_the_batch_norm_epsilon_of_pytorch():
  inputs = keras.Input((4, 4, 3))
  model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1, name="map")(inputs)))
  joined = objectives.simkd_student(model, keras.models.clone_model(model), "map", "map")
  epsilons = {layer.epsilon for layer in joined.layers if isinstance(layer, keras.layers.BatchNormalization)}
  assert epsilons == {torch.nn.BatchNorm2d(1).eps}
