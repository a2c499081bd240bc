"""Checks that a scheme can quantize every layer of a model, before tfmot fails on the first with an obscure error."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import collect_prunable_layers

from tfkd.ops import graph
from tfkd.quantization.export_check import after_training
from tfkd.quantization.pruned import Zeros
from tfkd.quantization.schemes import Scheme

layers = keras.layers
_READS_MASK = (
  layers.MultiHeadAttention, layers.Attention, layers.AdditiveAttention, layers.GlobalAveragePooling1D, layers.Softmax,
)  # fmt: skip
_MASK_ARGUMENTS = ("attention_mask", "use_causal_mask", "mask")


def check_quantizable(model: keras.Model, scheme: Scheme, float_layers: Sequence[str] = ()) -> None:
  """Raises one ValueError that names every layer that cannot be quantized and what to do about it.

  Args:
    model: the float model.
    scheme: scheme to quantize the model with.
    float_layers: names of layers that stay in float.

  Raises:
    TypeError: float_layers is one string.
    ValueError: with a line for each layer.
  """
  problems = []
  for layer in model.layers:
    if layer.name in float_layers:
      continue
    problem = _problem_for_any_scheme(layer) or scheme.problem(layer)
    if problem:
      problems.append(f"'{layer.name}' ({type(layer).__name__}): {problem}")
  if scheme.export_kind == "tflite":
    problems += _mask_problems(model, float_layers)
  if not problems:
    problems += _model_problems(model, scheme, float_layers)
  if problems:
    details = "\n  ".join(problems)
    alternative = after_training(model) if scheme.export_kind == "tflite" else ""
    raise ValueError(f"model '{model.name}' cannot be quantized as {scheme}:\n  {details}{alternative}")


def _mask_problems(model: keras.Model, float_layers: Sequence[str]) -> list[str]:
  """Returns a line for each layer that computes with a mask, which has no 8-bit form."""
  found = {}
  for node in graph.calls(model):
    layer, given = node.layer, [key for key in _MASK_ARGUMENTS if _is_given(node.call_kwargs.get(key))]
    if layer.name in float_layers or not isinstance(layer, _READS_MASK):
      continue
    if not given and any(getattr(tensor, "_keras_mask", None) is not None for tensor in node.keras_inputs):
      given = ["the mask of its inputs (of mask_zero or Masking)"]
    if given:
      found[layer.name] = (
        f"'{layer.name}' ({type(layer).__name__}): reads {' and '.join(given)}, and masks have no 8-bit form; leave "
        "the mask out, or keep the layer in float with float_layers"
      )
  return list(found.values())


def _is_given(argument: Any) -> bool:
  return any(value is not None and value is not False for value in tf.nest.flatten(argument))


def expanded(float_layers: Sequence[str], model: keras.Model) -> list[str]:
  """Returns the names of layers of a flattened model: the name of a nested model stands for all of its layers.

  Raises:
    TypeError: float_layers is one string.
    ValueError: the model has no such layer.
  """
  if isinstance(float_layers, str):
    raise TypeError(f"float_layers must be a list of layer names; got {float_layers!r}: use [{float_layers!r}].")
  names = [layer.name for layer in model.layers]
  found = {given: [n for n in names if n == given or n.startswith(f"{given}/")] for given in float_layers}
  unknown = [given for given in found if not found[given]]
  if unknown:
    raise ValueError(
      f"float_layers names {', '.join(map(repr, unknown))}, but the layers of '{model.name}' are {', '.join(names)}."
    )
  return [name for matches in found.values() for name in matches]


def _model_problems(model: keras.Model, scheme: Scheme, float_layers: Sequence[str]) -> list[str]:
  """Returns problems of the model as a whole, for a model whose single layers can be quantized."""
  if not any(layer.weights for layer in model.layers if not isinstance(layer, layers.BatchNormalization)):
    return ["it has no layer with a kernel to round"]
  problem = scheme.model_problem([layer for layer in model.layers if layer.name not in float_layers])
  return [problem] if problem else []


def check_model(model: keras.Model) -> None:
  """Raises if the model is not a float, built, functional or Sequential one."""
  if not isinstance(model, keras.Model) or not (isinstance(model, keras.Sequential) or model._is_graph_network):
    raise ValueError(
      f"only functional and Sequential tf_keras models can be quantized; got {type(model).__module__}."
      f"{type(model).__name__}. Rebuild it with `keras.Model(inputs, outputs)` of tf_keras."
    )
  if not model.built or not model.inputs:
    raise ValueError(
      f"model '{model.name}' has no input shape yet: call `model.build((None, height, width, channels))`."
    )
  if any(isinstance(layer, quantize_wrapper.QuantizeWrapper) for layer in model.layers):
    raise ValueError(f"model '{model.name}' is already quantized: pass the float model from which it was made.")
  if collect_prunable_layers(model):
    raise ValueError(
      f"model '{model.name}' has layers in wrappers of pruning, whose masks are not quantized: pass "
      "tfmot.sparsity.keras.strip_pruning(model), which keeps the zeros."
    )


def check_zeros(name: str, zeros: Zeros, scheme: Scheme, float_layers: Sequence[str]) -> None:
  """Raises if zeros are to be kept in kernels that the scheme rounds without a level for 0.

  Args:
    name: name of the model.
    zeros: those that training keeps.
    scheme: scheme of the quantization.
    float_layers: names of layers that stay in float.
  """
  rounded = [layer for layer in zeros if layer not in float_layers]
  if rounded and not scheme.has_zero:
    raise ValueError(
      f"model '{name}' is pruned, and the weights of {scheme} have no level 0 for the zeros of {', '.join(rounded)}: "
      "use w2a8 or more bits, float_layers, or keep_zeros=False."
    )


def _problem_for_any_scheme(layer: keras.layers.Layer) -> str | None:
  """Returns why no scheme can quantize a layer, or None."""
  if isinstance(layer, keras.Model):
    return "a nested model with a `call` of its own; build it as `keras.Model(inputs, outputs)`"
  if not isinstance(layer, layers.InputLayer) and layer.compute_dtype != "float32":
    return f"computes in {layer.compute_dtype}; build the student under the float32 policy (the teacher may be mixed)"
  return None
