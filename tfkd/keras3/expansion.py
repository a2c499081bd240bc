"""Layers of KerasHub that are made of other layers, as the graph of those."""

from typing import Any

# Blocks of image models. Their calls do the same in training: what differs is done by layers in them.
_BLOCKS = {
  "efficientnet.cba": ("CBABlock",),
  "efficientnet.fusedmbconv": ("FusedMBConvBlock",),
  "efficientnet.mbconv": ("MBConvBlock",),
  "mobilenet.mobilenet_backbone": (
    "ConvBnActBlock",
    "DepthwiseConvBlock",
    "InvertedResidualBlock",
    "SqueezeAndExcite2D",
  ),
}
BLOCKS = frozenset(f"keras_hub.src.models.{module}.{name}" for module, names in _BLOCKS.items() for name in names)


def is_block(layer: Any) -> bool:
  """Whether a Keras 3 layer is one of the blocks of KerasHub that can be expanded; a subclass of one is not."""
  return f"{type(layer).__module__}.{type(layer).__qualname__}" in BLOCKS


def expanded(layer: Any, keras3: Any) -> Any:
  """Makes the functional Keras 3 model that a block computes, of the block's own layers.

  Args:
    layer: block that was called in the graph of a model.
    keras3: the library.

  Raises:
    ValueError: the block has weights that its call does not reach.
  """
  args, kwargs = layer._inbound_nodes[0].arguments.args, layer._inbound_nodes[0].arguments.kwargs
  kwargs = {name: value for name, value in kwargs.items() if name not in ("training", "mask")}
  inputs = keras3.tree.map_structure(lambda t: keras3.Input(batch_shape=t.shape, dtype=t.dtype), args[0])
  model = keras3.Model(inputs, layer.call(inputs, *args[1:], **kwargs), name=layer.name)
  reached = {id(weight) for weight in model.weights}
  missing = [weight.path for weight in layer.weights if id(weight) not in reached]
  if missing:
    raise ValueError(
      f"Layer {layer.name!r} ({type(layer).__name__}) has weights that its call does not use: {missing}."
    )
  return model
