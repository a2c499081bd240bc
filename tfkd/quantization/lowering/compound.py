"""Layers that are computed by graphs of others: layer normalization, attention, products with kernels of any rank."""

import math
from typing import Any

import tf_keras as keras

from tfkd.ops.activations import activation_name
from tfkd.quantization.lowering import primitives
from tfkd.quantization.lowering.operation import Operation
from tfkd.quantization.lowering.parts import Parts, activation_layer

layers = keras.layers
_TENSOR = {"tensor": 0}


def _operation(name: str, function: str, *args: Any, **kwargs: Any) -> Operation:
  """Returns a layer that calls a function of one tensor or two, and of constants."""
  return Operation(function, [list(args), kwargs], name=name)


class LayerNormalizationParts(Parts):
  """Mean, difference, variance, reciprocal square root, product, and a scale and offset that are learned."""

  def __init__(self, layer: keras.layers.LayerNormalization):
    name = layer.name
    self._mean = _operation(f"{name}_mean", "reduce_mean", _TENSOR, axis=-1, keepdims=True)
    self._centered = layers.Subtract(name=f"{name}_centered")
    self._square = _operation(f"{name}_square", "math.squared_difference", {"tensor": 0}, {"tensor": 1})
    self._variance = _operation(f"{name}_variance", "reduce_mean", _TENSOR, axis=-1, keepdims=True)
    self._shifted = _operation(f"{name}_shifted", "math.add", _TENSOR, layer.epsilon)
    self._reciprocal = primitives.ReciprocalRoot(name=f"{name}_rsqrt")
    config = layer.get_config()
    has_weights = layer.scale or layer.center
    self._product = layers.Multiply(name=f"{name}_normalized" if has_weights else name)
    options = {key: config[key] for key in config if key.startswith(("gamma_", "beta_"))}
    affine = primitives.ChannelAffine(layer.scale, layer.center, options, name=name)
    affine.trainable = layer.trainable
    super().__init__([affine] if has_weights else [])

  def __call__(self, inputs: Any, **kwargs: Any) -> Any:
    mean = self._mean(inputs)
    centered, variance = self._centered([inputs, mean]), self._variance(self._square([inputs, mean]))
    outputs = self._product([centered, self._reciprocal(self._shifted(variance))])
    return self.layers[0](outputs) if self.layers else outputs


class ScaledSumParts(Parts):
  """A residual connection with a constant factor: inputs[0] + scale * inputs[1]."""

  def __init__(self, layer: Any):
    self._scaled = primitives.ConstantAffine([layer.scale], [0.0], name=f"{layer.name}_scaled")
    super().__init__([layers.Add(name=layer.name)])

  def __call__(self, inputs: Any, **kwargs: Any) -> Any:
    return self.layers[0]([inputs[0], self._scaled(inputs[1])])


class SumParts(Parts):
  """A sum or mean of any number of tensors as sums of two, which LiteRT has."""

  def __init__(self, layer: keras.layers.Add | keras.layers.Average):
    self._name, self._is_mean = layer.name, isinstance(layer, layers.Average)
    super().__init__([])

  def __call__(self, inputs: Any, **kwargs: Any) -> Any:
    name, total = self._name, inputs[0]
    if len(inputs) == 2 and inputs[0] is inputs[1]:
      return primitives.ConstantAffine([1.0 if self._is_mean else 2.0], [0.0], name=name)(total)
    for index, tensor in enumerate(inputs[1:], start=2):
      is_last = index == len(inputs) and not self._is_mean
      total = layers.Add(name=name if is_last else f"{name}_sum{index}")([total, tensor])
    return primitives.ConstantAffine([1 / len(inputs)], [0.0], name=name)(total) if self._is_mean else total


class SlopeParts(Parts):
  """`PReLU` with a slope per channel: relu(x) - alpha * relu(-x)."""

  def __init__(self, layer: keras.layers.PReLU):
    name, config = layer.name, layer.get_config()
    options = {f"gamma_{key}": config[f"alpha_{key}"] for key in ("initializer", "regularizer", "constraint")}
    self._positive = layers.ReLU(name=f"{name}_positive")
    self._negated = primitives.ConstantAffine([-1.0], [0.0], name=f"{name}_negated")
    self._negative = layers.ReLU(name=f"{name}_negative")
    self._difference = layers.Subtract(name=name)
    slope = primitives.ChannelAffine(True, False, options, name=f"{name}_slope")
    slope.trainable = layer.trainable
    super().__init__([slope])

  def __call__(self, inputs: Any, **kwargs: Any) -> Any:
    return self._difference([self._positive(inputs), self.layers[0](self._negative(self._negated(inputs)))])


class ProductParts(Parts):
  """A product with a kernel of any rank, as a dense layer between two reshapes.

  Args:
    layer: layer with attributes `kernel`, `bias` and the options of a dense layer.
    contracted: number of trailing axes of the input that the kernel's first axes contract.
    free: sizes of the kernel's other axes, which become the last ones of the output.
    name: name of the last layer.
  """

  def __init__(self, layer: Any, contracted: int, free: tuple[int, ...], name: str):
    self._contracted, self._free, self._name = contracted, free, name
    dense = layers.Dense(
      math.prod(free),
      use_bias=layer.bias is not None,
      kernel_regularizer=layer.kernel_regularizer,
      bias_regularizer=layer.bias_regularizer,
      kernel_initializer=layer.kernel_initializer,
      bias_initializer=layer.bias_initializer,
      kernel_constraint=layer.kernel_constraint,
      bias_constraint=layer.bias_constraint,
      name=f"{name}_product",
    )
    dense.trainable = layer.trainable
    is_linear = activation_name(layer.activation) == "linear"
    self._activation = None if is_linear else activation_layer(layer.activation, name)
    self._shaped = name if is_linear else f"{name}_linear"
    super().__init__([dense])

  def __call__(self, inputs: Any, **kwargs: Any) -> Any:
    kept = inputs.shape[1 : inputs.shape.rank - self._contracted]
    if self._contracted > 1:
      shape = [-1 if size is None else size for size in kept]
      inputs = layers.Reshape((*shape, math.prod(inputs.shape[-self._contracted :])), name=f"{self._name}_rows")(inputs)
    shape = [-1 if size is None else size for size in kept]
    outputs = layers.Reshape((*shape, *self._free), name=self._shaped)(self.layers[0](inputs))
    return outputs if self._activation is None else self._activation(outputs)


class AttentionParts(Parts):
  """Multi-head attention: three dense layers, two products of matrices with a softmax between, and a dense layer."""

  def __init__(self, layer: keras.layers.MultiHeadAttention):
    name, self._name = layer.name, layer.name
    heads = layer._num_heads
    self._parts = {
      part: ProductParts(getattr(layer, f"_{part}_dense"), 1, (heads, size), f"{name}_{part}")
      for part, size in (("query", layer._key_dim), ("key", layer._key_dim), ("value", layer._value_dim))
    }
    output = layer._output_dense
    self._output = ProductParts(output, 2, tuple(output.kernel.shape[2:]), name)
    self._transposed = {part: layers.Permute((2, 1, 3), name=f"{name}_{part}_heads") for part in self._parts}
    self._scaled = primitives.ConstantAffine([1 / math.sqrt(layer._key_dim)], [0.0], name=f"{name}_scaled")
    self._scores = _operation(f"{name}_scores", "matmul", {"tensor": 0}, {"tensor": 1}, transpose_b=True)
    self._softmax = layers.Activation("softmax", name=f"{name}_softmax")
    self._dropout = layers.Dropout(layer._dropout, name=f"{name}_dropout")
    self._context = _operation(f"{name}_context", "matmul", {"tensor": 0}, {"tensor": 1})
    self._joined = layers.Permute((2, 1, 3), name=f"{name}_joined")
    parts = [part for parts in (*self._parts.values(), self._output) for part in parts.layers]
    super().__init__(parts)

  def __call__(self, query: Any, value: Any, key: Any = None, **kwargs: Any) -> Any:
    key = value if key is None else key
    inputs = {"query": query, "key": key, "value": value}
    heads = {part: self._transposed[part](self._parts[part](tensor)) for part, tensor in inputs.items()}
    scores = self._softmax(self._scores([self._scaled(heads["query"]), heads["key"]]))
    context = self._context([self._dropout(scores), heads["value"]])
    outputs = self._output(self._joined(context))
    return (outputs, scores) if kwargs.get("return_attention_scores") else outputs


class DotAttentionParts(Parts):
  """`keras.layers.Attention`: a softmax between two products of matrices."""

  def __init__(self, layer: keras.layers.Attention):
    name = layer.name
    self._scaled = None
    if layer.use_scale:
      self._scaled = primitives.ConstantAffine([float(layer.scale.numpy())], [0.0], name=f"{name}_scaled")
    self._scores = _operation(f"{name}_scores", "matmul", {"tensor": 0}, {"tensor": 1}, transpose_b=True)
    self._softmax = layers.Activation("softmax", name=f"{name}_softmax")
    self._dropout = layers.Dropout(layer.dropout, name=f"{name}_dropout")
    self._context = _operation(name, "matmul", {"tensor": 0}, {"tensor": 1})
    super().__init__([], [])

  def __call__(self, inputs: Any, **kwargs: Any) -> Any:
    query, value, key = (*inputs, inputs[1])[:3] if len(inputs) == 2 else inputs
    query = query if self._scaled is None else self._scaled(query)
    scores = self._softmax(self._scores([query, key]))
    outputs = self._context([self._dropout(scores), value])
    return (outputs, scores) if kwargs.get("return_attention_scores") else outputs


def sum_of_tensors(layer: Any) -> Parts | None:
  """Returns the parts of a mean, and of a sum that is not of two different tensors."""
  is_plain = isinstance(layer, layers.Add) and all(
    len(node.keras_inputs) == 2 and node.keras_inputs[0] is not node.keras_inputs[1] for node in layer.inbound_nodes
  )
  return None if is_plain or len(layer.inbound_nodes) > 1 else SumParts(layer)


def slope(layer: Any) -> Parts | None:
  """Returns the parts of a `PReLU` with one slope for each entry of the last axis; None for other slopes."""
  return SlopeParts(layer) if layer.alpha.shape.num_elements() == layer.alpha.shape[-1] else None


def layer_normalization(layer: Any) -> Parts | None:
  """Returns the parts of a normalization of the last axis; None for other axes."""
  rank = len(layer.input_shape)
  axes = [axis % rank for axis in (layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis])]
  return LayerNormalizationParts(layer) if axes == [rank - 1] else None


def attention(layer: Any) -> Parts | None:
  """Returns the parts of attention over the second axis of sequences; None for other axes."""
  is_of_sequences = layer._query_shape.rank == layer._value_shape.rank == 3
  return AttentionParts(layer) if is_of_sequences else None


def dot_attention(layer: Any) -> Parts | None:
  """Returns the parts of attention by dot products; None for other scores."""
  is_constant = not layer.use_scale or not layer.trainable
  return DotAttentionParts(layer) if layer.score_mode == "dot" and is_constant else None


def einsum_dense(layer: Any) -> Parts | None:
  """Returns an `EinsumDense` of the form "...xy,xyz->...z" as a dense layer; None for other equations."""
  left, _, outputs = layer.equation.replace(" ", "").partition("->")
  inputs, _, kernel = left.partition(",")
  shared = [letter for letter in kernel if letter in inputs]
  count, free = len(shared), "".join(letter for letter in kernel if letter not in inputs)
  prefix = inputs[: len(inputs) - count]
  is_product = inputs == prefix + "".join(shared) and kernel == "".join(shared) + free and outputs == prefix + free
  if not (is_product and free and prefix):
    return None
  sizes = tuple(layer.kernel.shape[count:])
  if layer.bias is not None and math.prod(layer.bias.shape) != math.prod(sizes):
    return None
  return ProductParts(layer, count, sizes, layer.name)
