"""Teachers from TFLite files, which LiteRT runs."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.features import ModelOutputs
from tfkd.ops.cores import available_cores
from tfkd.storage.digests import sha256_of_bytes
from tfkd.teachers.frozen import freeze, name_of_preprocessing


def tflite(
  path: str | os.PathLike,
  preprocess: Callable[[Any], Any] | None = None,
  signature: str | None = None,
  num_threads: int | None = None,
) -> "TFLite":
  """Makes a teacher from a TFLite file, whichever library wrote it.

  Args:
    path: TFLite file.
    preprocess: see `Frozen`. The file gets the batch as it is, or as this function returns it: a scaling in the file's
      metadata is that of its training data, which a data set for training has applied already.
    signature: name of the signature to run; None if the file has one or none.
    num_threads: number of LiteRT threads; None uses all cores.

  Returns:
    A teacher whose outputs are one tensor, or a dict by the signature's names if the file has several. It ends in
    whatever the file ends in: a file of probabilities is refused by a `Distiller`; pass it the function
    `lambda batch: tf.math.log(teacher(batch).outputs + 1e-7)`.

  Raises:
    FileNotFoundError: there is no file at path.
    ValueError: it is no TFLite file that LiteRT can run, has no such signature, or an input or output without a first
      axis of examples.
  """
  return TFLite(path, preprocess, signature, num_threads)


class TFLite:
  """A TFLite file as a teacher; see `tflite`. Objectives on features may name its outputs.

  Quantized inputs and outputs are converted from and to float32. A file of fixed batch size runs as often as a batch
  needs. Steps cannot be compiled with `jit_compile`.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    preprocess: Callable[[Any], Any] | None = None,
    signature: str | None = None,
    num_threads: int | None = None,
  ):
    self.path = os.fspath(path)
    self.preprocess = preprocess
    if not os.path.isfile(self.path):
      raise FileNotFoundError(f"no TFLite file at {self.path}.")
    with open(self.path, "rb") as file:
      content = file.read()
    self._digest = sha256_of_bytes(content)
    self._run, self._inputs, self._outputs = _opened(content, self.path, signature, num_threads)
    self._lock = threading.Lock()  # An interpreter runs one batch at a time; replicas ask for several.
    sizes = {int(details["shape_signature"][0]) for details in self._inputs.values()}
    self._batch_size = max(sizes) if max(sizes) > 0 else None

  def __call__(self, inputs: Any, features: Sequence[str] = ()) -> ModelOutputs:
    """Runs the file: quantized outputs as float32, without gradient.

    Raises:
      ValueError: the batch lacks an input, has another shape or type, or the file lacks an output.
    """
    shapes = self.feature_shapes(features or list(self._outputs))
    batch = self._named(self.preprocess(inputs) if self.preprocess else inputs)
    tensors = [_as_input(name, details, batch[name], self.path) for name, details in self._inputs.items()]
    dtypes = [tf.float32 if _is_scaled(d) else tf.as_dtype(d["dtype"]) for d in self._outputs.values()]
    results = tf.nest.flatten(tf.numpy_function(self._run_batch, tensors, dtypes, stateful=False))
    found = {
      name: freeze(tf.ensure_shape(result, self._shape(name)))
      for name, result in zip(self._outputs, results, strict=True)
    }
    outputs = next(iter(found.values())) if len(found) == 1 else found
    return ModelOutputs(outputs, {name: found[name] for name in shapes} if features else {})

  def describe(self) -> dict[str, Any]:
    """Digest of the file, and the preprocessing."""
    return {"weights": self._digest, "preprocessing": [name_of_preprocessing(self.preprocess)]}

  def feature_shapes(self, features: Sequence[str]) -> dict[str, tf.TensorShape]:
    """Static shapes of the named outputs.

    Raises:
      ValueError: the file has no such output.
    """
    missing = [name for name in features if name not in self._outputs]
    if missing:
      raise ValueError(
        f"{self.path} has no layers to tap, and no output {', '.join(missing)}, which objectives read: its outputs are "
        f"{', '.join(self._outputs)}."
      )
    return {name: self._shape(name) for name in features}

  def _shape(self, name: str) -> tf.TensorShape:
    sizes = self._outputs[name]["shape_signature"][1:]
    return tf.TensorShape([None, *(int(size) if size >= 0 else None for size in sizes)])

  def _named(self, inputs: Any) -> Mapping[str, Any]:
    """The batch as a dict by input name."""
    names = list(self._inputs)
    if isinstance(inputs, Mapping) and all(name in inputs for name in names):
      return inputs
    flat = tf.nest.flatten(inputs)
    if len(names) == len(flat) == 1:
      return {names[0]: flat[0]}
    found = f"a dict of {', '.join(map(str, inputs))}" if isinstance(inputs, Mapping) else f"{len(flat)} tensors"
    raise ValueError(
      f"{self.path} reads {', '.join(names)}, and the batch is {found}: pass preprocess, a function that returns a "
      "dict of these inputs."
    )

  def _run_batch(self, *arrays: np.ndarray) -> list[np.ndarray]:
    """Runs the interpreter on numpy arrays, in parts of the file's batch size."""
    quantized = [_quantize(array, d) for array, d in zip(arrays, self._inputs.values(), strict=True)]
    rows, size = len(arrays[0]), self._batch_size or max(1, len(arrays[0]))
    parts = []
    with self._lock:
      for start in range(0, max(rows, 1), size):
        part = [_padded(array[start : start + size], size) for array in quantized]
        results = self._run(dict(zip(self._inputs, part, strict=True)))
        parts.append([_dequantize(results[name], details) for name, details in self._outputs.items()])
    for name, result in zip(self._outputs, parts[0], strict=True):
      if not result.ndim or len(result) != size:
        raise ValueError(
          f"output {name} of {self.path} has shape {result.shape} for {size} examples: convert the file with one entry "
          "per example on the first axis."
        )
    return [np.concatenate(column)[:rows] for column in zip(*parts, strict=True)]


def _opened(
  content: bytes, path: str, signature: str | None, num_threads: int | None
) -> tuple[Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]], dict[str, Any], dict[str, Any]]:
  """A function from arrays by input name to arrays by output name, and LiteRT's details of inputs and outputs."""
  from ai_edge_litert.interpreter import Interpreter

  try:
    interpreter = Interpreter(model_content=content, num_threads=num_threads or available_cores())
    signatures = list(interpreter.get_signature_list())
    interpreter.allocate_tensors()
  except (ValueError, RuntimeError) as error:
    raise ValueError(f"{path} is not a TFLite file that LiteRT can run: {error}") from error
  if signature is None and len(signatures) > 1 or signature is not None and signature not in signatures:
    found = f"no signature {signature!r}" if signature is not None else "several signatures"
    raise ValueError(f"{path} has {found}: set signature to one of {', '.join(signatures) or 'none'}.")
  if signatures:
    runner = interpreter.get_signature_runner(signature or signatures[0])
    inputs, outputs = runner.get_input_details(), runner.get_output_details()

    def run_signature(arrays):
      return runner(**arrays)

    run = run_signature
  else:
    inputs, outputs = (
      {d["name"]: d for d in details} for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )

    def run_subgraph(arrays):
      for name, array in arrays.items():
        if tuple(interpreter.get_tensor(inputs[name]["index"]).shape) != array.shape:
          interpreter.resize_tensor_input(inputs[name]["index"], array.shape)
          interpreter.allocate_tensors()
      for name, array in arrays.items():
        interpreter.set_tensor(inputs[name]["index"], array)
      interpreter.invoke()
      return {name: interpreter.get_tensor(details["index"]) for name, details in outputs.items()}

    run = run_subgraph

  scalars = [name for part in (inputs, outputs) for name, d in part.items() if not len(d["shape_signature"])]
  if scalars:
    raise ValueError(f"{path} has no axis of examples in {', '.join(scalars)}: convert it with a batch axis.")
  return run, inputs, outputs


def _as_input(name: str, details: Mapping[str, Any], value: Any, path: str) -> tf.Tensor:
  """A batch of one input, of a type that `_quantize` reads.

  Raises:
    ValueError: it has another shape or type than the file's input.
  """
  tensor, expected = tf.convert_to_tensor(value), tf.as_dtype(details["dtype"])
  shape = [int(size) if size >= 0 else None for size in details["shape_signature"][1:]]
  if not tensor.shape.is_compatible_with([None, *shape]):
    raise ValueError(
      f"input {name} of {path} has shape {shape} for each example, and the batch has shape {tensor.shape}: pass "
      "preprocess, such as tfkd.teachers.Preprocessing(size)."
    )
  is_float = tensor.dtype.is_floating
  if _is_scaled(details) and not is_float:
    raise ValueError(
      f"input {name} of {path} stores floats as {expected.name}, and the batch has {tensor.dtype.name}: pass "
      "preprocess, a function to the floats of the file's training data."
    )
  is_number = tensor.dtype.is_integer or tensor.dtype.is_bool or is_float
  if not is_number or is_float and not (expected.is_floating or _is_scaled(details)):
    raise ValueError(f"input {name} of {path} has type {expected.name}, and the batch has {tensor.dtype.name}.")
  return tf.cast(tensor, tf.float32 if _is_scaled(details) else expected)


def _padded(array: np.ndarray, size: int) -> np.ndarray:
  """The array with zeros up to a number of examples."""
  return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)])


def _is_scaled(details: Mapping[str, Any]) -> bool:
  """Whether a tensor's integers stand for floats."""
  return bool(details["quantization"][0])


def _quantize(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
  if not _is_scaled(details):
    return values
  (scale, zero_point), limits = details["quantization"], np.iinfo(details["dtype"])
  return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])


def _dequantize(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
  if not _is_scaled(details):
    return values
  scale, zero_point = details["quantization"]
  return (values.astype(np.float32) - zero_point) * np.float32(scale)
