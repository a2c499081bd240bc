"""Losses against PyTorch's operations, put together as the methods' PyTorch codes do; where PyTorch is installed."""

import numpy as np
import pytest

from tfkd import losses
from tfkd.losses._pooling import average_pool

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(2, 16, 10)).astype(np.float32)
LABELS = RNG.integers(0, 10, 16)
MAPS = RNG.normal(size=(2, 16, 8, 8, 6)).astype(np.float32)
EMBEDDINGS = RNG.normal(size=(2, 16, 12)).astype(np.float32)


def _maps():
  return [torch.tensor(x).permute(0, 3, 1, 2) for x in MAPS]


def _agrees(ours, theirs):
  np.testing.assert_allclose(np.mean(ours), float(theirs), rtol=1e-3)


def test_soft_targets():
  t, s = map(torch.tensor, LOGITS)
  theirs = F.kl_div(F.log_softmax(s / 4, 1), F.softmax(t / 4, 1), reduction="batchmean")
  _agrees(losses.soft_target_kl(*LOGITS, 4.0), theirs)


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
  theirs = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)
  np.testing.assert_allclose(losses.standardize_logits(LOGITS[0]), theirs, rtol=1e-3, atol=1e-6)


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
  theirs = F.adaptive_avg_pool2d(_maps()[0], size).permute(0, 2, 3, 1)
  np.testing.assert_allclose(average_pool(MAPS[0], size), theirs, rtol=1e-4, atol=1e-6)


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
