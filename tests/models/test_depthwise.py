"""Students of the Food-11 homework have the published sizes and the stages of a ResNet."""

import math

import pytest

from tfkd import models
from tfkd.features.taps import tappable


@pytest.mark.parametrize("build, weights", [(models.depthwise_cnn, 59_851), (models.plain_cnn, 47_787)])
def test_numbers_of_weights_are_within_the_limit(build, weights):
  assert sum(math.prod(v.shape) for v in build().trainable_variables) == weights < 60_000


@pytest.mark.parametrize("side, stem", [(32, "cifar"), (128, "imagenet"), (224, "imagenet")])
def test_stages_have_the_height_and_width_of_a_resnet(side, stem):
  student = tappable(models.depthwise_cnn(11, (side, side, 3)))
  teacher = tappable(models.resnet18(11, (side, side, 3), stem, width=4))
  for stage in ("layer1", "layer2", "layer3", "layer4"):
    assert student[stage][1:3] == teacher[stage][1:3]


def test_invalid_options_raise():
  with pytest.raises(ValueError, match="at least 30"):
    models.plain_cnn(10, (28, 28, 1))
  for build in (models.depthwise_cnn, models.plain_cnn):
    with pytest.raises(ValueError, match="at least 2; got 1"):
      build(1)
