"""Rebuilds convolutional networks of `tfkd.models` in Keras 3 and in PyTorch, with the same weights."""

from typing import Any

import tf_keras as keras

# Configuration of Keras layers that rebuilt layers need. Convolutions and dense layers have no activation.
_ARGUMENTS = {
  "Conv2D": ("filters", "kernel_size", "strides", "padding", "use_bias"),
  "BatchNormalization": ("momentum", "epsilon"),
  "ZeroPadding2D": ("padding",),
  "MaxPooling2D": ("pool_size", "strides"),
  "AveragePooling2D": ("pool_size", "strides"),
  "Dense": ("units",),
  "ReLU": (),
  "Add": (),
  "Flatten": (),
  "GlobalAveragePooling2D": (),
}


def to_keras3(model: keras.Model) -> Any:
  """Rebuilds a functional `tf_keras` model in Keras 3.

  Args:
    model: model of one input and one output, with layers of the classes in `_ARGUMENTS`.

  Returns:
    Keras 3 functional model with the same layer names, weights and outputs.

  Raises:
    ValueError: the model has a layer of another class.
  """
  import keras as keras3

  tensors = {}
  for layer, inputs in _calls(model):
    if not inputs:
      tensors[layer.name] = keras3.Input(model.input_shape[1:], name=layer.name)
      continue
    made = getattr(keras3.layers, type(layer).__name__)(name=layer.name, **_arguments(layer))
    tensors[layer.name] = made([tensors[name] for name in inputs] if len(inputs) > 1 else tensors[inputs[0]])
  rebuilt = keras3.Model(tensors[model.input_names[0]], tensors[model.output_names[0]], name=model.name)
  for layer in model.layers:
    rebuilt.get_layer(layer.name).set_weights(layer.get_weights())
  return rebuilt


def to_torch(model: keras.Model) -> Any:
  """Rebuilds a functional `tf_keras` model in PyTorch.

  Args:
    model: see `to_keras3`. A `Flatten` must follow a map of one position.

  Returns:
    `torch.nn.Module` from float [batch, channels, height, width] to logits.

  Raises:
    ValueError: the model has a layer of another class.
  """
  import torch

  calls = list(_calls(model))

  class Rebuilt(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.parts = torch.nn.ModuleDict({layer.name: _torch_layer(layer) for layer, inputs in calls if inputs})

    def forward(self, images):
      values = {}
      for layer, inputs in calls:
        arguments = [values[name] for name in inputs]
        if not inputs:
          values[layer.name] = images
        elif type(layer).__name__ == "Add":
          values[layer.name] = arguments[0] + arguments[1]
        else:
          values[layer.name] = self.parts[layer.name](*arguments)
      return values[model.output_names[0]]

  return Rebuilt()


def _torch_layer(layer):
  from torch import nn

  kind, arguments = type(layer).__name__, _arguments(layer)
  if kind == "Conv2D":
    padding = 0 if arguments["padding"] == "valid" else layer.kernel_size[0] // 2
    if padding and layer.strides[0] > 1:
      raise ValueError(f"{layer.name} has a stride and padding: PyTorch pads the other side.")
    size = (layer.kernel.shape[2], layer.filters, layer.kernel_size, layer.strides, padding)
    made = nn.Conv2d(*size, bias=layer.use_bias)
  elif kind == "BatchNormalization":
    made = nn.BatchNorm2d(layer.gamma.shape[0], layer.epsilon, 1 - layer.momentum)
  elif kind == "Dense":
    made = nn.Linear(*layer.kernel.shape)
  elif kind == "ZeroPadding2D":
    (top, bottom), (left, right) = layer.padding
    made = nn.ZeroPad2d((left, right, top, bottom))
  elif kind == "MaxPooling2D":
    made = nn.MaxPool2d(layer.pool_size, layer.strides)
  elif kind == "AveragePooling2D":
    made = nn.AvgPool2d(layer.pool_size, layer.strides)
  elif kind == "GlobalAveragePooling2D":
    made = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
  else:
    made = {"ReLU": nn.ReLU, "Flatten": nn.Flatten, "Add": nn.Identity}[kind]()
  _copy_weights(layer, made)
  return made


def _copy_weights(layer, made):
  import torch

  names = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
  names["moving_variance"] = "running_var"
  state = made.state_dict()
  for variable in layer.weights:
    name = variable.name.split("/")[-1].split(":")[0]
    array = variable.numpy()
    if name == "kernel":
      array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    state[names[name]] = torch.tensor(array)
  made.load_state_dict(state)


def _calls(model):
  """Yields (layer, names of its input layers) in the order of computation."""
  for layer in model.layers:
    parents = [node.layer.name for node in layer.inbound_nodes[0].parent_nodes]
    if parents:
      _arguments(layer)
    yield layer, parents


def _arguments(layer):
  kind = type(layer).__name__
  if kind not in _ARGUMENTS:
    raise ValueError(f"{layer.name} is a {kind}: expected one of {', '.join(_ARGUMENTS)}.")
  config = layer.get_config()
  return {name: config[name] for name in _ARGUMENTS[kind]}
