"""Conversion of models to TFLite, in a process of its own, and what became of their tensors."""

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np
import tensorflow as tf

_PROGRAM = os.path.join(os.path.dirname(__file__), "_converter.py")
NO_OPERATION = "TFLite has no operation for"
_LONGEST = 300  # Characters of the converter's own words in an error.


def convert(model, *, io=None, examples=None, integers_only=True):
  """Converts a model to TFLite, with one signature, "serving_default", of batch one.

  The converter runs in another process, which the first call starts (some four seconds) and later calls use again.

  Args:
    model: functional or `Sequential` model of `tf_keras` or Keras 3 (TensorFlow backend), of fixed input shapes. A
      single input is called "images" and a single output "logits"; several have the names of their layers.
    io: "int8" or "float32": type of float inputs and outputs where the file computes in integers; None for a float
      file.
    examples: list of arrays [n, ...], one for each input, which set the ranges of a float model; None for a model that
      has its ranges.
    integers_only: with examples, whether an operation without an integer form is an error.

  Returns:
    bytes of the file.

  Raises:
    ValueError: the converter failed or crashed; names the log file with all that it wrote.
  """
  names, outputs = _names(model, "input", "images"), _names(model, "output", "logits")

  def serve(*inputs):
    return dict(zip(outputs, tf.nest.flatten(model(_packed(model, inputs), training=False)), strict=True))

  specs = [tf.TensorSpec([1, *i.shape[1:]], i.dtype, name) for i, name in zip(model.inputs, names, strict=True)]
  # The variables alone: of a Keras model each layer would be traced again to be saved. Keras 3 wraps TensorFlow's.
  module = tf.Module()
  module.held = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
  with tempfile.TemporaryDirectory() as directory:
    tf.saved_model.save(module, directory, signatures=tf.function(serve).get_concrete_function(*specs))
    if examples is not None:
      np.savez(os.path.join(directory, "examples.npz"), **dict(zip(names, examples, strict=True)))
    job = {"io": io, "integers_only": integers_only, "examples": None if examples is None else len(examples[0])}
    with open(os.path.join(directory, "job.json"), "w", encoding="utf-8") as file:
      json.dump(job, file)
    _PROCESS.run(directory, model)
    with open(os.path.join(directory, "model.tflite"), "rb") as file:
      return file.read()


def float_tensors(content, io):
  """Names of the tensors of a TFLite file that its operations read or write as float32.

  Args:
    content: bytes of the file.
    io: "float32" leaves out the file's inputs and outputs.

  Returns:
    list of str.
  """
  from ai_edge_litert import schema_py_generated as schema

  model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
  found = {}
  for graph in model.subgraphs:
    ends = {*graph.inputs, *graph.outputs} if io == "float32" else set()
    # Recurrent operations list "intermediate" float tensors that are neither inputs nor outputs, and never computed.
    used = {index for op in graph.operators or () for index in (*_indices(op.inputs), *_indices(op.outputs))}
    for index in sorted({*used, *graph.inputs, *graph.outputs} - ends - {-1}):
      if graph.tensors[index].type == schema.TensorType.FLOAT32:
        found[graph.tensors[index].name.decode()] = None
  return list(found)


def _indices(array):
  return [] if array is None else list(array)


def _names(model, kind, single):
  """Names of a model's inputs or outputs in the file."""
  tensors = getattr(model, f"{kind}s")
  if len(tensors) == 1:
    return [single]
  names = [re.sub(r"\W", "_", name) for name in getattr(model, f"{kind}_names")]
  return names if len(set(names)) == len(names) else [f"{kind}_{i}" for i in range(len(tensors))]


def _packed(model, inputs):
  """Tensors in the structure that the model is called with."""
  if len(inputs) == 1 and not tf.nest.is_nested(getattr(model, "_nested_inputs", None)):
    return inputs[0]
  structure = getattr(model, "_nested_inputs", None)
  return tf.nest.pack_sequence_as(model._inputs_struct if structure is None else structure, inputs)


class _Process:
  """The converter's process: started when it is needed, and again where it has crashed."""

  def __init__(self):
    self._lock = threading.Lock()
    self._process = None
    self._log = None
    atexit.register(self._stop)

  def run(self, directory, model):
    """Converts a SavedModel directory with a `job.json`; it gets a `model.tflite`."""
    with self._lock:
      if self._process is None or self._process.poll() is not None:
        self._start()
      before = self._log.seek(0, os.SEEK_END)
      try:
        self._process.stdin.write(json.dumps(directory) + "\n")
        self._process.stdin.flush()
        reply = self._process.stdout.readline()
      except BrokenPipeError:
        reply = ""
      if reply and "error" not in json.loads(reply):
        return
      code = None if reply else self._process.wait()
      self._log.seek(before)
      log = _kept(self._log.read())
    if code is None:
      raise ValueError(f"{model.name} does not convert to TFLite: {_cause(json.loads(reply)['error'])} Log: {log}")
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    loops = [layer.name for layer in model.layers if hasattr(layer, "unroll") and not layer.unroll]
    advice = f" Build the recurrent layers {', '.join(loops)} with unroll=True." if loops else ""
    raise ValueError(f"TensorFlow's converter crashed ({ended}) on {model.name}.{advice} Log: {log}")

  def _start(self):
    self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as this process)
    self._process = subprocess.Popen(
      [sys.executable, _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
      env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONFAULTHANDLER": "1"},
    )  # fmt: skip

  def _stop(self):
    if self._process is not None:
      self._process.kill()


def _kept(content):
  """Path of a file with what the converter wrote."""
  with tempfile.NamedTemporaryFile(prefix="tfkd_converter_", suffix=".log", delete=False) as file:
    file.write(content)
  return file.name


def _cause(text):
  """One sentence of the converter's error, which may be pages of its internal representation."""
  operations = sorted(set(re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", text)))
  if operations:
    return f"{NO_OPERATION} {', '.join(operations)}."
  found = re.search(r"'tfl\.\w+' op [^:\n]+", text)
  layer = re.search(r"(?:quant_)?(\w+)/\w+@__inference", text)
  line = " ".join((found[0] if found else text).split())
  line = line[:_LONGEST] + ("..." if len(line) > _LONGEST else "")
  return f"{line} (layer '{layer[1]}')." if layer else f"{line}."


_PROCESS = _Process()
