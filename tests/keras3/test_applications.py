"""Networks of `keras.applications` and KerasHub, with random weights."""

import keras as keras3
import numpy as np
import pytest

from tests.keras3.comparison import TOLERANCE, difference, randomize
from tfkd import from_keras3

_SMALL = [
  "ConvNeXtTiny",
  "EfficientNetV2B0",
  "MobileNet",
  "MobileNetV2",
  "MobileNetV3Small",
  "ResNet50",
  "VGG16",
  "Xception",
]
_LARGE = [
  "DenseNet121",
  "EfficientNetB0",
  "InceptionResNetV2",
  "InceptionV3",
  "MobileNetV3Large",
  "NASNetMobile",
  "ResNet50V2",
]
APPLICATIONS = [*_SMALL, *(pytest.param(name, marks=pytest.mark.end_to_end) for name in _LARGE)]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_has_the_same_outputs(name):
  size = 224 if name == "NASNetMobile" else 96  # NASNet checks the shape.
  options = {"weights": None, "classes": 10, "classifier_activation": None, "input_shape": (size, size, 3)}
  model = randomize(getattr(keras3.applications, name)(**options))
  images = np.random.default_rng(1).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
  made = from_keras3(model)
  assert difference(np.asarray(model(images)), made(images).numpy()) < TOLERANCE
  operations = {operation.name for operation in model.operations}
  assert {layer.name for layer in made.layers} == operations


def _hub():
  keras_hub = pytest.importorskip("keras_hub")
  return keras_hub.models


def _resnet(block, **options):
  return _hub().ResNetBackbone(
    [64], [7], [64, 64], [1, 2], [1, 2], block_type=block, image_shape=(64, 64, 3), **options
  )


def _efficientnet():
  return _hub().EfficientNetBackbone(
    stackwise_kernel_sizes=[3, 3],
    stackwise_num_repeats=[1, 2],
    stackwise_input_filters=[16, 8],
    stackwise_output_filters=[8, 12],
    stackwise_expansion_ratios=[1, 4],
    stackwise_strides=[1, 2],
    stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
    stackwise_block_types=["fused", "unfused"],
    width_coefficient=1.0,
    depth_coefficient=1.0,
    min_depth=8,
    image_shape=(64, 64, 3),
  )


def _mobilenet():
  return _hub().MobileNetBackbone(
    stackwise_expansion=[[40, 56], [64, 144], [40]],
    stackwise_num_blocks=[2, 2, 1],
    stackwise_num_filters=[[16, 16], [24, 24], [24]],
    stackwise_kernel_size=[[3, 3], [5, 5], [5]],
    stackwise_num_strides=[[2, 1], [2, 1], [1]],
    stackwise_se_ratio=[[None, None], [0.25, 0.25], [0.3]],
    stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"], ["hard_swish"]],
    stackwise_padding=[[1, 1], [2, 2], [2]],
    output_num_filters=64,
    input_activation="hard_swish",
    output_activation="hard_swish",
    input_num_filters=16,
    depthwise_filters=8,
    depthwise_stride=2,
    depthwise_residual=False,
    last_layer_filter=32,
    squeeze_and_excite=0.5,
    image_shape=(64, 64, 3),
  )


@pytest.mark.parametrize(
  "kind, make",
  [
    ("ResNet", lambda: _resnet("bottleneck_block")),
    ("ResNet", lambda: _resnet("basic_block", use_pre_activation=True)),
    ("EfficientNet", _efficientnet),
    ("MobileNet", _mobilenet),
  ],
)
def test_a_classifier_of_kerashub_and_its_backbone_have_the_same_outputs(kind, make):
  backbone = make()
  model = randomize(getattr(_hub(), f"{kind}ImageClassifier")(backbone=backbone, num_classes=4))
  images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
  for one in (model, backbone):
    made = from_keras3(one)
    assert difference(np.asarray(one(images)), made(images).numpy()) < TOLERANCE
    assert {layer.name for layer in one.layers} <= {layer.name for layer in made.layers}
    assert len(made.trainable_weights) == len(one.trainable_weights)
