"""Converts models to TFLite in a separate process, and lists the float tensors of the result."""

import atexit
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfkd.quantization import signature
from tfkd.quantization.grid import rounded_kernels

_PROGRAM = os.path.join(os.path.dirname(__file__), "_converter.py")
NO_OPERATION = "TFLite has no operation for"
_NEARLY_ZERO = 1e-6
_LONGEST = 300  # Characters of the converter's message in an error.


def convert(
  model: Any,
  *,
  shapes: Sequence[tuple[int, ...]] | None = None,
  io: Literal["int8", "float32"] | None = None,
  examples: Sequence[np.ndarray] | None = None,
  integers_only: bool = True,
) -> bytes:
  """Converts a model to TFLite with one signature, "serving_default", and batch size 1.

  The converter runs in another process, which the first call starts in about four seconds and later calls reuse.

  Args:
    model: functional or `Sequential` model of `tf_keras` or Keras 3 (TensorFlow backend). `tfkd.quantization.signature`
      names its inputs and outputs.
    shapes: shape of each input without the batch; None if the model's are fixed.
    io: type of float inputs and outputs of an integer file; None converts to a float file.
    examples: arrays [n, ...], one for each input, which set the ranges of a float model; None for a model with ranges.
    integers_only: with examples, whether an operation without an integer form is an error.

  Returns:
    Content of the file.

  Raises:
    ValueError: the converter failed or crashed; names the log file with its output.
    RuntimeError: the converter's process cannot be started.
  """
  names, outputs = signature.names(model, "input"), signature.names(model, "output")
  shapes = signature.input_shapes(model) if shapes is None else shapes

  def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    return dict(zip(outputs, tf.nest.flatten(model(_packed(model, inputs), training=False)), strict=True))

  inputs = zip(model.inputs, shapes, names, strict=True)
  specs = [tf.TensorSpec([1, *shape], tensor.dtype, name) for tensor, shape, name in inputs]
  # Only the variables, since saving a Keras model traces each of its layers. Variables of Keras 3 wrap TensorFlow's.
  module: Any = tf.Module()
  # Gradients of swish, say, would be traced for each of its calls, which takes longer than the rest.
  options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
  scales = contextlib.nullcontext() if io is None else _no_zero_scales(model)
  with tempfile.TemporaryDirectory() as directory, rounded_kernels(model) as kernels, scales:
    module.held = [*kernels, *(v if isinstance(v, tf.Variable) else v.value for v in model.variables)]
    function = tf.function(serve).get_concrete_function(*specs)
    tf.saved_model.save(module, directory, signatures=function, options=options)
    for i, array in enumerate(examples or ()):
      np.save(os.path.join(directory, f"{i}.npy"), array)
    job = {"io": io, "integers_only": integers_only, "examples": None if examples is None else names}
    with open(os.path.join(directory, "job.json"), "w", encoding="utf-8") as file:
      json.dump(job, file)
    return _PROCESS.run(directory, model)


@contextlib.contextmanager
def _no_zero_scales(model: Any) -> Iterator[None]:
  """Replaces scales of batch normalization that are all 0 for the duration of the block, as at the end of new blocks.

  The converter multiplies the kernel of the convolution by them, and leaves one in float whose range has no width.
  """
  found = []
  for layer in getattr(model, "layers", ()):
    scales = getattr(getattr(layer, "layer", layer), "gamma", None)
    if isinstance(scales, tf.Variable) and not scales.numpy().any():
      found.append(scales)
      scales.assign(tf.fill(scales.shape, _NEARLY_ZERO))
  try:
    yield
  finally:
    for scales in found:
      scales.assign(tf.zeros_like(scales))


def float_tensors(content: bytes, io: str | None) -> list[str]:
  """Returns the names of the float32 tensors that operations of a TFLite file read or write.

  Args:
    content: content of the file.
    io: "float32" ignores the inputs and outputs of the file.
  """
  from ai_edge_litert import schema_py_generated as schema

  model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
  found = {}
  for graph in model.subgraphs:
    ends = {*graph.inputs, *graph.outputs} if io == "float32" else set()
    # Recurrent operations list "intermediate" float tensors that no operation reads or writes.
    used = {index for op in graph.operators or () for index in (*_indices(op.inputs), *_indices(op.outputs))}
    for index in sorted({*used, *graph.inputs, *graph.outputs} - ends - {-1}):
      if graph.tensors[index].type == schema.TensorType.FLOAT32:
        found[graph.tensors[index].name.decode()] = None
  return list(found)


def _indices(array: Any) -> list[int]:
  return [] if array is None else list(array)


def _packed(model: Any, inputs: Sequence[tf.Tensor]) -> Any:
  """Returns tensors in the structure that the model is called with."""
  if len(inputs) == 1 and not tf.nest.is_nested(getattr(model, "_nested_inputs", None)):
    return inputs[0]
  structure = getattr(model, "_nested_inputs", None)
  return tf.nest.pack_sequence_as(model._inputs_struct if structure is None else structure, inputs)


class _Process:
  """The converter's process, which is started on first use and after a crash or an interruption."""

  def __init__(self):
    self._lock = threading.Lock()
    self._process: Any = None
    self._log: Any = None

  def run(self, directory: str, model: Any) -> bytes:
    """Converts a SavedModel directory with a `job.json` and returns the content of the file."""
    with self._lock:
      if self._process is None or self._process.poll() is not None:
        self._start()
      try:
        is_done = self._ask(directory)
      except BaseException:  # For example KeyboardInterrupt: the reply to this job must not reach the next one.
        self.stop()
        raise
      content = _content(directory, "model.tflite") if is_done else None
      log = None if content else _kept(self._written())
      code = None if is_done else self._process.wait()
    if content:
      return content
    if code is None:
      error = (_content(directory, "error.txt") or b"its result could not be written").decode()
      raise ValueError(f"{model.name} does not convert to TFLite: {_cause(error)} Log: {log}")
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    loops = [layer.name for layer in model.layers if hasattr(layer, "unroll") and not layer.unroll]
    advice = f" Build the recurrent layers {', '.join(loops)} with unroll=True." if loops else ""
    raise ValueError(f"TensorFlow's converter crashed ({ended}) on {model.name}.{advice} Log: {log}")

  def stop(self) -> None:
    """Kills the process."""
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      self._process = None

  def _start(self) -> None:
    self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (open as long as the process runs)
    try:
      self._process = subprocess.Popen(
        [sys.executable or "python", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._log,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONFAULTHANDLER": "1"},
      )
    except OSError as error:
      raise RuntimeError(
        f"conversion needs a second Python process, but sys.executable {sys.executable!r} does not start ({error}): "
        "set it to the path of a Python with TensorFlow."
      ) from error

  def _ask(self, directory: str) -> bool:
    """Sends a job to the process; returns True when the job is done, and False if the process ended."""
    self._log.seek(0)  # Discards the log of earlier jobs. The process shares the position of this file.
    self._log.truncate()
    line = json.dumps(directory) + "\n"
    try:
      self._process.stdin.write(line)
      self._process.stdin.flush()
    except BrokenPipeError:
      return False
    # Skips lines that are not the reply, such as output of a sitecustomize module.
    return line in iter(self._process.stdout.readline, "")

  def _written(self) -> bytes:
    """Returns the output of the process since the last job began."""
    self._log.seek(0)
    return self._log.read()


def _content(directory: str, name: str) -> bytes | None:
  """Returns the content of a file, or None if there is none."""
  path = os.path.join(directory, name)
  if not os.path.exists(path):
    return None
  with open(path, "rb") as file:
    return file.read()


def _kept(content: bytes) -> str:
  """Writes the converter's output to a log file and returns its path."""
  try:
    with tempfile.NamedTemporaryFile(prefix="tfkd_converter_", suffix=".log", delete=False) as file:
      file.write(content)
  except OSError as error:  # The error of the conversion must still be raised.
    return f"not written ({error})"
  return file.name


def _cause(text: str) -> str:
  """Returns one sentence of the converter's error, which may contain pages of its internal representation."""
  operations = sorted(set(re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", text)))
  if operations:
    return f"{NO_OPERATION} {', '.join(operations)}."
  found = re.search(r"'tfl\.\w+' op [^:\n]+", text)
  layer = re.search(r"(?:quant_)?(\w+)/\w+@__inference", text)
  line = " ".join((found[0] if found else text).split())
  line = line[:_LONGEST] + ("..." if len(line) > _LONGEST else "")
  return f"{line} (layer '{layer[1]}')." if layer else f"{line}."


_PROCESS = _Process()
atexit.register(_PROCESS.stop)
# A forked process needs its own converter, and a lock that no thread of its parent holds.
if hasattr(os, "register_at_fork"):  # Windows cannot fork.
  os.register_at_fork(after_in_child=_PROCESS.__init__)
