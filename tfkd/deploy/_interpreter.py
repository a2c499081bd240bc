"""Opens TFLite files in LiteRT and runs them on batches, one example at a time."""

import os
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tfkd.deploy.metadata import metadata_or_none
from tfkd.ops.cores import available_cores
from tfkd.quantization.signature import valid

Interpreter: TypeAlias = Any
"""`ai_edge_litert.interpreter.Interpreter`, which is imported on first use."""
Details: TypeAlias = dict[str, dict[str, Any]]
"""LiteRT's details of tensors by their names in the signature."""


class Ends(NamedTuple):
  """Inputs and outputs of a file, and whether these are in the order of the model."""

  given: Details
  taken: Details
  is_ordered: bool


def interpreter(path: str | os.PathLike, num_threads: int | None = None, *, keeps_tensors: bool = False) -> Interpreter:
  """Opens a LiteRT interpreter of a file, ready to run one example.

  The digest of a file that carries tfkd metadata is verified.

  Args:
    path: TFLite file.
    num_threads: number of LiteRT threads; None uses all cores.
    keeps_tensors: whether all tensors can be read after a run, rather than the outputs only.

  Raises:
    FileNotFoundError: there is no file at `path`.
    ValueError: the file is not a TFLite file, or was changed since it was written.
  """
  from ai_edge_litert.interpreter import Interpreter

  metadata_or_none(path)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")  # It takes more memory.
      opened = Interpreter(
        model_path=os.fspath(path),
        num_threads=num_threads or available_cores(),
        experimental_preserve_all_tensors=keeps_tensors,
      )
    opened.allocate_tensors()
  except (ValueError, RuntimeError) as error:
    raise ValueError(f"{path} is not a TFLite file that LiteRT can run: {error}") from error
  return opened


def ends(opened: Interpreter, fields: Mapping[str, Any] | None = None) -> Ends:
  """Returns the inputs and the outputs of a file by name.

  Args:
    opened: result of `interpreter`.
    fields: metadata, whose "inputs" and "outputs" give the order of the model; None for LiteRT's order.
  """
  found: list[Details] = []
  is_ordered = True
  tensors = {"inputs": opened.get_input_details(), "outputs": opened.get_output_details()}
  signatures = opened.get_signature_list()
  for kind, details in tensors.items():
    named = {str(entry["name"]): entry for entry in details}
    if signatures:
      runner = opened.get_signature_runner(next(iter(signatures)))
      named = runner.get_input_details() if kind == "inputs" else runner.get_output_details()
      order = (fields or {}).get(kind)
      if order and set(order) == set(named):
        named = {name: named[name] for name in order}
      else:
        is_ordered = is_ordered and len(named) == 1
    found.append(named)
  return Ends(found[0], found[1], is_ordered or not signatures)


def ending(path: str | os.PathLike, index: int) -> str | None:
  """Returns "softmax" or "sigmoid" if an output of a file is the result of that operation, or None.

  Args:
    path: TFLite file.
    index: "index" of the output's details.
  """
  schema, model = read_schema(path)
  graph, operators = model.subgraphs[0], schema.BuiltinOperator
  kinds = {operators.SOFTMAX: "softmax", operators.LOGISTIC: "sigmoid"}
  made_by = {output: operation for operation in graph.operators for output in operation.outputs}
  while index in made_by:
    kind = model.operatorCodes[made_by[index].opcodeIndex].builtinCode
    if kind in kinds:
      return kinds[kind]
    if kind not in (operators.QUANTIZE, operators.DEQUANTIZE):
      break
    index = made_by[index].inputs[0]
  return None


def read_schema(path: str | os.PathLike) -> tuple[Any, Any]:
  """Returns the module of the TFLite schema, and a file as its `ModelT`."""
  from ai_edge_litert import schema_py_generated as schema

  with open(path, "rb") as file:
    return schema, schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))


def run_by_name(opened: Interpreter, inputs: Any, names: Ends) -> dict[str, np.ndarray]:
  """Runs an interpreter on a batch, one example at a time: files have batch size 1, and some cannot be resized.

  Args:
    opened: result of `interpreter`.
    inputs: one array [batch, ...] for each input, scaled as in training: an array, a list in the order of the model, or
      a dict by name.
    names: result of `ends`.

  Returns:
    [batch, ...] by the name of the output: float32, or the integers of an output without a scale.

  Raises:
    ValueError: the arrays do not fit the inputs, or LiteRT lacks an operation.
  """
  given, taken, is_ordered = names
  found = by_name(inputs, given, "inputs", is_ordered)
  arrays = [_quantize(array, given[name], name) for name, array in found.items()]
  if len({len(array) for array in arrays}) != 1:
    raise ValueError(f"inputs have different numbers of examples: {', '.join(str(len(array)) for array in arrays)}.")
  columns: dict[str, list[np.ndarray]] = {name: [] for name in taken}
  try:
    for example in zip(*arrays, strict=True):
      for details, array in zip(given.values(), example, strict=True):
        opened.set_tensor(details["index"], array.reshape(details["shape"]))
      opened.invoke()
      for name, details in taken.items():
        columns[name].append(opened.get_tensor(details["index"]))
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"the file is damaged, or has operations that LiteRT lacks: {error}") from error
  return {name: _dequantize(np.concatenate(column), taken[name]) for name, column in columns.items()}


def run(opened: Interpreter, images: Any) -> Any:
  """Runs an interpreter on a batch, see `run_by_name`; a single output is an array, several are a dict by name."""
  outputs = run_by_name(opened, images, ends(opened))
  return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def by_name(values: Any, details: Mapping[str, Any], what: str, is_ordered: bool) -> dict[str, Any]:
  """Returns the entries of a dict, a list in the order of the model, or a single value, by name.

  Args:
    values: nested values as a data set has them.
    details: names of the inputs or outputs.
    what: "inputs", "labels", ..., for messages.
    is_ordered: whether `details` have the order of the model.

  Raises:
    ValueError: an entry is missing, or there is another number of them.
  """
  names = list(details)
  if isinstance(values, Mapping):
    found = {valid(str(name)): value for name, value in values.items()}
    missing = [name for name in names if name not in found]
    if missing:
      raise ValueError(f"{what} must have {', '.join(names)}; the data set has {', '.join(map(str, values))}.")
    return {name: found[name] for name in names}
  if not isinstance(values, (tuple, list)):
    values = [values]
  if len(values) != len(names):
    raise ValueError(
      f"the file has {len(names)} entries for {what}, {', '.join(names)}; the data set has {len(values)}: give a dict."
    )
  if len(names) > 1 and not is_ordered:
    raise ValueError(f"the file does not tell the order of {', '.join(names)}: give {what} as a dict by name.")
  return dict(zip(names, values, strict=True))


def _quantize(values: Any, details: Mapping[str, Any], name: str) -> np.ndarray:
  """Returns an input's array in the type of the file."""
  values = np.asarray(values)
  shape = tuple(details["shape"][1:].tolist())
  if shape != values.shape[1:] and (*shape, 1) != values.shape[1:] and details["shape"].size:
    what = "images" if len(shape) == 3 else f"input '{name}'"
    raise ValueError(f"the file takes {what} of shape {shape}; the data set has {values.shape[1:]}.")
  scale, zero_point = details["quantization"]
  if scale:
    limits = np.iinfo(details["dtype"])
    # Halves are rounded up, as in training: the integers 0..255 of images that are scaled to [-1, 1] are all ties.
    return np.clip(np.floor(values / scale + 0.5) + zero_point, limits.min, limits.max).astype(details["dtype"])
  converted = values.astype(details["dtype"])
  if np.issubdtype(details["dtype"], np.integer) and not np.array_equal(converted, values):
    raise ValueError(
      f"the file takes integers of type {details['dtype'].__name__} as '{name}'; the data set has other values, from "
      f"{values.min()} to {values.max()}."
    )
  return converted


def _dequantize(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
  scale, zero_point = details["quantization"]
  if not scale:
    return values
  return (values.astype(np.float32) - zero_point) * np.float32(scale)
