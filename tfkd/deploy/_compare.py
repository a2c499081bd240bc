"""Shows layer by layer where the outputs of a TFLite file differ from those of its Keras model."""

import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.deploy._interpreter import ends, interpreter, read_schema, run_by_name
from tfkd.deploy.metadata import check_exported_from, metadata_or_none
from tfkd.keras3 import as_tf_keras
from tfkd.ops import graph
from tfkd.ops._flatten import flatten
from tfkd.quantization import scheme_of
from tfkd.quantization.inputs import input_batches
from tfkd.quantization.unrounded import without_rounding

_CHUNK = 8  # Examples whose features are in memory at once.


class ComparedLayer(NamedTuple):
  """What `compare` found for a layer whose output is a tensor of the file.

  Attributes:
    name: name of the Keras layer, without the prefix of quantized layers.
    operation: LiteRT's operation that computes the output, such as "CONV_2D".
    type: type of the tensor, such as "int8".
    snr: signal-to-noise ratio of the file against Keras in dB: 10 log10(sum k^2 / sum (f - k)^2) for outputs f of the
      file and k of the student; inf if they are equal.
    float_snr: the same against the student without rounding; None for students that do not round.
    worst_steps: largest difference from Keras in steps of the tensor; None for float tensors.
    clipped: share in [0, 1] of the values without rounding (of Keras, for a student that does not round) that are
      outside of the range of the tensor; None for float tensors.
  """

  name: str
  operation: str
  type: str
  snr: float
  float_snr: float | None
  worst_steps: float | None
  clipped: float | None


class ComparedExample(NamedTuple):
  """An example for which the outputs of a file differ much.

  Attributes:
    index: position of the example in the data, from 0.
    float_difference: largest absolute difference of the outputs of the file from those of the student without rounding.
    keras_difference: likewise from those of the student.
    classes: classes that the file, Keras, and the student without rounding decide for; None if the first output is not
      [batch, classes].
  """

  index: int
  float_difference: float
  keras_difference: float
  classes: tuple[int, int, int] | None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Result of `compare`; `tfkd.reporting.layer_report` shows it.

  Attributes:
    layers: in the order in which the file computes them; the outputs are the last.
    examples: those with the largest differences, the largest from float first.
    count: number of examples that were compared.
  """

  layers: list[ComparedLayer]
  examples: list[ComparedExample]
  count: int


def compare(
  path: str | os.PathLike, student: keras.Model, data: Any, *, num_examples: int = 5, num_threads: int | None = None
) -> Comparison:
  """Compares the outputs of the layers of a TFLite file with those of the Keras model it was exported from.

  Noise adds up from layer to layer; where the ratio drops by much, accuracy is lost. A drop against Keras is a
  difference of arithmetic; one only against the student without rounding comes from the bits or the range (see
  "clipped") of that layer. `sensitivity` measures the kernels one by one.

  A layer without a tensor of its own in the file is not listed: a convolution, batch normalization and ReLU are one
  operation, listed as its last layer. In the float file of a student with fewer than eight feature bits, the features
  of a layer are compared up to a factor, since the next operation multiplies by their step.

  Args:
    path: TFLite file.
    student: the functional or `Sequential` model that `to_tflite` was given.
    data: inputs in any form that `model.fit` takes, with or without labels. All of it is read: a few hundred examples
      suffice, and a data set must end (`dataset.take(4)`).
    num_examples: number of examples to list.
    num_threads: number of LiteRT threads; None uses all cores.

  Returns:
    `Comparison`; `tfkd.reporting.layer_report` makes tables and a picture of it.

  Raises:
    FileNotFoundError: there is no file at `path`.
    TypeError: the student is not a functional or `Sequential` model.
    ValueError: the file is not a TFLite file, was changed since it was written, or was exported from another model or
      other weights; or data has no example, no end, or does not fit the model's inputs.
  """
  fields = metadata_or_none(path)
  check_exported_from(path, fields, student)
  model = as_tf_keras(student, "student")
  if not graph.has_graph(model):
    raise TypeError(
      f"student must be a functional or Sequential model, whose layers can be read; got {type(model).__name__}."
    )
  if isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY:
    raise ValueError("data has no end: pass data.take(4), say.")
  model = flatten(model)
  scheme = scheme_of(model)
  file, layers = _File(path, fields, num_threads), _Layers(model)
  pairs = _pairs(file, layers, has_levels=scheme is not None and scheme.export_kind == "pack")
  differences, classes = [], []
  for inputs in _chunks(input_batches(model, data, sys.maxsize)):
    values, keras_values = file.run(inputs), layers.run(inputs)
    float_values = keras_values if scheme is None else layers.run_without_rounding(inputs)
    for pair in pairs:
      pair.update(values, keras_values, float_values)
    outputs = [
      (values[index], keras_values[id(tensor)], float_values[id(tensor)])
      for index, tensor in zip(file.outputs, model.outputs, strict=True)
    ]
    differences.append(np.max([[_largest(f - r), _largest(f - k)] for f, k, r in outputs], axis=0).T)
    classes.append(np.stack([output.argmax(-1) for output in outputs[0]], axis=-1))
  if not differences:
    raise ValueError("data yielded no example: give at least one.")
  has_classes = len(model.outputs[0].shape) == 2 and model.outputs[0].shape[-1] > 1
  return Comparison(
    _best(pairs, scheme is not None),
    _worst(np.concatenate(differences), np.concatenate(classes) if has_classes else None, num_examples),
    sum(map(len, differences)),
  )


def _chunks(batches: Iterator[list[tf.Tensor]]) -> Iterator[list[tf.Tensor]]:
  for batch in batches:
    for start in range(0, len(batch[0]), _CHUNK):
      yield [tensor[start : start + _CHUNK] for tensor in batch]


class _Tensor(NamedTuple):
  """A tensor that an operation of a file computes."""

  index: int
  name: str
  operation: str
  details: Mapping[str, Any]


class _File:
  """A TFLite file whose tensors can be read after each run."""

  def __init__(self, path: str | os.PathLike, fields: Mapping[str, Any] | None, num_threads: int | None):
    self._opened = interpreter(path, num_threads, keeps_tensors=True)
    self._ends = ends(self._opened, fields)
    self.outputs = [int(details["index"]) for details in self._ends.taken.values()]
    details = {int(entry["index"]): entry for entry in self._opened.get_tensor_details()}
    schema, content = read_schema(path)
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    self.tensors = [
      _Tensor(
        int(index), details[index]["name"], kinds[content.operatorCodes[op.opcodeIndex].builtinCode], details[index]
      )
      for op in content.subgraphs[0].operators
      for index in op.outputs
      if details[index]["dtype"] in (np.float32, np.int8, np.uint8, np.int16)
    ]

  def run(self, inputs: Sequence[tf.Tensor]) -> dict[int, np.ndarray]:
    """Returns the tensors by index, dequantized."""
    taken = {str(tensor.index): dict(tensor.details) for tensor in self.tensors}
    found = run_by_name(self._opened, [tensor.numpy() for tensor in inputs], self._ends._replace(taken=taken))
    return {int(name): values for name, values in found.items()}


class _Layers:
  """The outputs of the layers of a functional model, by the ids of its symbolic tensors."""

  def __init__(self, model: keras.Model):
    self.model = model
    self.nodes = graph.calls(model)
    self._tensors = [tensor for node in self.nodes for tensor in tf.nest.flatten(node.outputs)]
    self._rounded, self._unrounded = (tf.function(self._walk, reduce_retracing=True) for _ in range(2))

  def _walk(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    values = {id(reference): tensor for reference, tensor in zip(self.model.inputs, inputs, strict=True)}
    for node in self.nodes:
      args, kwargs = graph.arguments(node, values)
      graph.record(node, node.layer(*args, **kwargs), values)
    return [values[id(tensor)] for tensor in self._tensors]

  def run(self, inputs: Sequence[tf.Tensor]) -> dict[int, np.ndarray]:
    return self._by_id(self._rounded(inputs))

  def run_without_rounding(self, inputs: Sequence[tf.Tensor]) -> dict[int, np.ndarray]:
    with without_rounding(self.model):  # Each call may trace.
      return self._by_id(self._unrounded(inputs))

  def _by_id(self, values: Sequence[tf.Tensor]) -> dict[int, np.ndarray]:
    return {id(tensor): np.asarray(value) for tensor, value in zip(self._tensors, values, strict=True)}

  def fused(self, node: Any, named: set[str]) -> list[tuple[str, Any]]:
    """Returns name and output of a layer, and of those after it that one operation of a file may compute with it.

    Args:
      node: call of the layer.
      named: names of layers that have operations of their own.
    """
    found = []
    while True:
      (*others, tensor) = tf.nest.flatten(node.outputs)
      found.append((node.layer.name, tensor))
      readers = [reader for reader in self.nodes if any(t is tensor for t in reader.keras_inputs)]
      is_end = others or len(readers) != 1 or any(t is tensor for t in self.model.outputs)
      if is_end or len(readers[0].keras_inputs) != 1 or readers[0].layer.name in named:
        return found
      (node,) = readers


class _Pair:
  """A tensor of a file and the output of a layer that it may be, with sums over all examples in float64."""

  def __init__(self, tensor: _Tensor, layer: str, reference: Any, has_levels: bool):
    self.tensor, self.layer, self.reference = tensor, layer, reference
    self._scale, self._zero = tensor.details["quantization"]
    self._is_scaled = has_levels and not self._scale
    self._sums: Any = 0.0
    self._worst, self._clipped, self._count = 0.0, 0, 0

  def update(self, values: dict, keras_values: dict, float_values: dict) -> None:
    """Adds the values of some examples."""
    f = np.asarray(values[self.tensor.index], np.float64)
    k, r = (
      np.asarray(found[id(self.reference)], np.float64).reshape(f.shape) for found in (keras_values, float_values)
    )
    self._sums = self._sums + np.array(
      [
        *(np.vdot(a, b) for a, b in ((f, f), (k, k), (r, r), (f, k), (f, r))),
        ((f - k) ** 2).sum(),
        ((f - r) ** 2).sum(),
      ]
    )
    self._count += f.size
    if self._scale:
      limits = np.iinfo(self.tensor.details["dtype"])
      low, high = ((limit - self._zero) * self._scale for limit in (limits.min - 0.5, limits.max + 0.5))
      self._worst = max(self._worst, float(np.abs(f - k).max() / self._scale))
      self._clipped += int(((r < low) | (r > high)).sum())

  def ratios(self) -> tuple[float, float]:
    """Returns the signal-to-noise ratios against Keras, and against the student without rounding, in dB."""
    ff, kk, rr, fk, fr, of_keras, of_float = self._sums
    if self._is_scaled and ff and fk > 0:
      factor = fk / ff
      of_keras, of_float = (max(factor**2 * ff - 2 * factor * x + y, 0.0) for x, y in ((fk, kk), (fr, rr)))
    return _snr(kk, of_keras), _snr(rr, of_float)

  def result(self, is_quantized: bool) -> ComparedLayer:
    """Returns the row of the layer."""
    snr, float_snr = self.ratios()
    has_steps = bool(self._scale)
    return ComparedLayer(
      self.layer.removeprefix("quant_"),
      self.tensor.operation,
      np.dtype(self.tensor.details["dtype"]).name,
      snr,
      float_snr if is_quantized else None,
      self._worst if has_steps else None,
      self._clipped / self._count if has_steps else None,
    )


def _pairs(file: _File, layers: _Layers, has_levels: bool) -> list[_Pair]:
  """Returns the pairs of the file's tensors and the outputs of layers that these may be.

  Args:
    file, layers: the two sides.
    has_levels: whether tensors may be levels, which a later operation multiplies by their step.
  """
  nodes: dict[str, list[Any]] = {}
  for node in layers.nodes:
    nodes.setdefault(node.layer.name, []).append(node)
  owners = {tensor.index: _owner(tensor.name, nodes) for tensor in file.tensors}
  named = {name for name in owners.values() if name}
  outputs = dict(zip(file.outputs, layers.model.outputs, strict=True))
  pairs = []
  for tensor in file.tensors:
    if tensor.index in outputs:
      reference = outputs[tensor.index]
      found = [(reference._keras_history.layer.name, reference)]
    else:
      found = [entry for node in nodes.get(owners[tensor.index] or "", ()) for entry in layers.fused(node, named)]
    shape = _without_ones(tensor.details["shape"][1:])
    pairs += [_Pair(tensor, *entry, has_levels) for entry in found if _without_ones(entry[1].shape[1:]) == shape]
  return pairs


def _owner(name: str, layers: Mapping[str, Any]) -> str | None:
  """Returns the layer that a tensor is named after, as in "model/conv/Conv2D" or "model/nested/conv/Conv2D"."""
  parts = [part.partition(";")[0] for part in name.split("/")]
  for end in range(len(parts), 0, -1):
    for start in range(end):
      found = "/".join(parts[start:end])
      for candidate in (found, re.sub(r"_\d+$", "", found)):  # The second call of a layer has the suffix "_1".
        if candidate in layers:
          return candidate
  return None


def _without_ones(shape: Sequence[Any]) -> list[Any]:
  return [size for size in map(_int, shape) if size != 1]


def _int(size: Any) -> int | None:
  return None if size is None else int(size)


def _best(pairs: Sequence[_Pair], is_quantized: bool) -> list[ComparedLayer]:
  """Returns a row for each layer: each tensor is the output that it is most like, and each output the tensor."""
  by_tensor: dict[int, _Pair] = {}
  for pair in pairs:
    other = by_tensor.get(pair.tensor.index)
    if other is None or pair.ratios() > other.ratios():
      by_tensor[pair.tensor.index] = pair
  by_layer: dict[int, _Pair] = {}
  for pair in by_tensor.values():
    other = by_layer.get(id(pair.reference))
    if other is None or pair.ratios() >= other.ratios():
      by_layer[id(pair.reference)] = pair
  return [pair.result(is_quantized) for pair in by_tensor.values() if by_layer[id(pair.reference)] is pair]


def _worst(differences: np.ndarray, classes: np.ndarray | None, count: int) -> list[ComparedExample]:
  """Returns the examples with the largest differences [examples, 2], from float and from Keras."""
  found = []
  for i in np.lexsort((-differences[:, 1], -differences[:, 0]))[:count]:
    of_float, of_keras = map(float, differences[i])
    decided = None
    if classes is not None:
      file, by_keras, by_float = map(int, classes[i])
      decided = (file, by_keras, by_float)
    found.append(ComparedExample(int(i), of_float, of_keras, decided))
  return found


def _largest(difference: np.ndarray) -> np.ndarray:
  return np.abs(difference.reshape(len(difference), -1)).max(1)


def _snr(signal: float, noise: float) -> float:
  if not noise:
    return float("inf")
  return float(10 * np.log10(signal / noise)) if signal else float("-inf")
