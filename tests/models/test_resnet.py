"""Residual networks have the published sizes and stages."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.features.taps import tappable


def _trainable(model):
  return sum(math.prod(v.shape) for v in model.trainable_variables)


@pytest.mark.parametrize(
  "build, weights",
  [
    # kuangliu/pytorch-cifar.
    (lambda: models.resnet18(), 11_173_962),
    (lambda: models.resnet50(), 23_520_842),
    # torchvision.
    (lambda: models.resnet18(1000, (64, 64, 3), "imagenet"), 11_689_512),
    (lambda: models.resnet34(1000, (64, 64, 3), "imagenet"), 21_797_672),
    (lambda: models.resnet50(1000, (64, 64, 3), "imagenet"), 25_557_032),
    # Networks of Tian et al. 2020 with a hundred classes.
    (lambda: models.cifar_resnet(8, 100, factor=4), 1_233_540),
    (lambda: models.cifar_resnet(32, 100, factor=4), 7_433_860),
    (lambda: models.wide_resnet(16, 2, 100), 703_284),
    (lambda: models.wide_resnet(40, 1, 100), 569_780),
    (lambda: models.wide_resnet(40, 2, 100), 2_255_156),
  ],
)
def test_sizes_are_the_published_ones(build, weights):
  with tf.Graph().as_default():  # Does not compute initial values.
    assert _trainable(build()) == weights


@pytest.mark.parametrize("depth, millions", [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_cifar_networks_have_the_papers_sizes(depth, millions):
  # He et al. 2016, table 6, whose shortcuts have no weights.
  assert _trainable(models.cifar_resnet(depth)) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
  "model, stages",
  [
    (lambda: models.resnet18(width=4), [(32, 4), (16, 8), (8, 16), (4, 32)]),
    (lambda: models.resnet50(width=4), [(32, 16), (16, 32), (8, 64), (4, 128)]),
    (lambda: models.resnet34(input_shape=(64, 64, 3), stem="imagenet", width=4), [(16, 4), (8, 8), (4, 16), (2, 32)]),
    (lambda: models.cifar_resnet(8), [(32, 16), (16, 32), (8, 64)]),
    (lambda: models.wide_resnet(16, 2), [(32, 32), (16, 64), (8, 128)]),
  ],
)
def test_stages_are_tapped_by_name(model, stages):
  shapes = tappable(model())
  for number, (side, channels) in enumerate(stages, 1):
    assert shapes[f"layer{number}"].as_list() == [None, side, side, channels]
  assert f"layer{len(stages) + 1}" not in shapes


def test_the_stand_in_before_a_preactivation_changes_nothing():
  stand_in = models.wide_resnet(10, 1).get_layer("layer1_block0_pre_identity")
  feature = np.random.default_rng(0).normal(size=(2, 8, 8, 16)).astype(np.float32)
  np.testing.assert_array_equal(stand_in(feature), feature)
  assert not stand_in.trainable_weights


@pytest.mark.parametrize(
  "build, words",
  [
    (lambda: models.resnet18(stem="mnist"), "unknown stem 'mnist'"),
    (lambda: models.resnet18(num_classes=1), "at least 2; got 1"),
    (lambda: models.cifar_resnet(18), "6 n \\+ 2.*got 18"),
    (lambda: models.wide_resnet(18, 2), "6 n \\+ 4.*got 18"),
  ],
)
def test_invalid_options_raise(build, words):
  with pytest.raises(ValueError, match=words):
    build()
