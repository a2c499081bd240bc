"""`models.build` and `models.parse` find networks by name."""

import pytest

from tfkd import models


@pytest.mark.parametrize(
  "name, same",
  [
    ("resnet18x0.125", lambda: models.resnet18(width=8)),
    ("resnet50x0.125", lambda: models.resnet50(width=8)),
    ("resnet8", lambda: models.cifar_resnet(8)),
    ("resnet8x4", lambda: models.cifar_resnet(8, factor=4)),
    ("wrn-16-2", lambda: models.wide_resnet(16, 2)),
    ("svhn_cnnx0.5", lambda: models.svhn_cnn(width=8)),
    ("svhn_cnn", models.svhn_cnn),
  ],
)
def test_names_build_the_network_of_the_function(name, same):
  built, expected = models.build(name), same()
  assert [w.shape for w in built.weights] == [w.shape for w in expected.weights]


def test_images_above_64_pixels_get_the_imagenet_stem():
  small, large = (models.build("resnet18x0.125", 11, (side, side, 3)) for side in (64, 128))
  assert small.get_layer("conv1").kernel_size == (3, 3) and large.get_layer("conv1").kernel_size == (7, 7)
  assert large.output_shape == (None, 11)


@pytest.mark.parametrize(
  "name",
  [
    "", "resnet", "resnet9", "resnet2", "resnet18x", "resnet18x0", "resnet18x0.01", "resnet8x0.5", "resnet8x-1",
    "wrn-15-2", "wrn-16-0", "wrn-16", "vgg16", "resnet18xfour", "svhn_cnnx1e2", "resnet50x0.01", "vit_tiny0",
    "vit_large16", "resnet18@", "resnet18@0", "vgg16@224", "resnet8@32@32",
  ],
)  # fmt: skip
def test_unknown_names_raise_and_the_message_lists_all_families(name):
  with pytest.raises(ValueError, match="unknown network") as error:
    models.build(name)
  assert all(family.names in str(error.value) for family in models.FAMILIES)
