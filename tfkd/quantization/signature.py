"""Names and sizes of a model's inputs and outputs in a TFLite file."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

_UNNAMED = {"input": "images", "output": "logits"}
_AUTOMATIC_INPUT = re.compile(r"(input|input_layer|keras_tensor)(_\d+)?")


def names(model: Any, kind: Literal["input", "output"]) -> list[str]:
  """Returns the names of a model's inputs or outputs in a file's signature.

  These are the keys if the model takes or returns a dict, and otherwise the names of the layers, with "_" in place of
  other characters than letters and digits. Keras numbers layers without a name, differently in every process: a single
  input or output of that kind is called "images" or "logits".

  Args:
    model: functional or `Sequential` model of `tf_keras` or Keras 3, quantized or not.
    kind: "input" or "output".

  Returns:
    Different names in the order of `model.inputs` or `model.outputs`.
  """
  tensors = getattr(model, f"{kind}s")
  found = [valid(name) for name in own_names(model, kind)]
  if len(found) == 1 and keys(model, kind) is None and _is_automatic(model, tensors[0], found[0], kind):
    return [_UNNAMED[kind]]
  return found if len(set(found)) == len(found) else [f"{kind}_{i}" for i in range(len(found))]


def own_names(model: Any, kind: Literal["input", "output"]) -> list[str]:
  """Returns the names of a model's inputs or outputs as its `fit` knows them: keys of a dict, or names of layers."""
  found = keys(model, kind)
  if found is not None:
    return found
  # Models of Keras 3 have no such lists; their tensors belong to operations.
  layers = [_layer(tensor) for tensor in getattr(model, f"{kind}s")]
  found = getattr(model, f"{kind}_names", None) or [layer.name for layer in layers]
  return [
    name.removeprefix("quant_") if hasattr(layer, "quantize_config") else name
    for name, layer in zip(found, layers, strict=True)
  ]


def keys(model: Any, kind: Literal["input", "output"]) -> list[str] | None:
  """Returns the keys of a model that takes or returns a flat dict, in the order of the flattened tensors, or None."""
  structure = getattr(model, f"_nested_{kind}s", None)
  structure = getattr(model, f"_{kind}s_struct", None) if structure is None else structure
  is_flat = isinstance(structure, Mapping) and not any(
    isinstance(v, (Mapping, list, tuple)) for v in structure.values()
  )
  return sorted(map(str, structure)) if is_flat and structure is not None else None


def input_shapes(model: Any, given: Any = None) -> list[tuple[int, ...]]:
  """Returns the sizes of a model's inputs in a file, without the batch.

  Args:
    model: see `names`.
    given: sizes of inputs that the model leaves open: of a single input a tuple such as (224, 224, 3), of several a
      list in their order, or a dict by name. None if all sizes are fixed.

  Raises:
    ValueError: a size is missing, or contradicts the model.
  """
  labels = own_names(model, "input")
  shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
  chosen = _by_input(model, labels, given, len(shapes))
  found = []
  for label, shape, sizes in zip(labels, shapes, chosen, strict=True):
    if sizes is None:
      if None in shape:
        raise ValueError(
          f"{model.name} has input '{label}' of shape {shape}, and a file needs fixed sizes: pass input_shapes, "
          f"such as {{'{label}': {tuple(32 if size is None else size for size in shape)}}}."
        )
    elif len(sizes) != len(shape) or any(a is not None and a != b for a, b in zip(shape, sizes, strict=True)):
      raise ValueError(f"input_shapes has {sizes} for input '{label}', which has shape {shape} without the batch.")
    found.append(shape if sizes is None else sizes)
  return found


def _by_input(model: Any, labels: Sequence[str], given: Any, count: int) -> list[tuple[int, ...] | None]:
  """Returns the given sizes of each input, or None for those not given."""
  if given is None:
    return [None] * count
  if isinstance(given, Mapping):
    in_file = dict(zip(names(model, "input"), labels, strict=True))
    by_label = {in_file.get(name, name): sizes for name, sizes in given.items()}
    unknown = [name for name in by_label if name not in labels]
    if unknown:
      raise ValueError(f"input_shapes names {', '.join(map(str, unknown))}; the inputs are {', '.join(labels)}.")
    return [_sizes(by_label[label]) if label in by_label else None for label in labels]
  if count == 1 and not (len(given) == 1 and isinstance(given[0], (tuple, list))):
    given = [given]
  if len(given) != count:
    raise ValueError(f"input_shapes has {len(given)} shapes; {model.name} has {count} inputs: {', '.join(labels)}.")
  return [None if sizes is None else _sizes(sizes) for sizes in given]


def _sizes(sizes: Any) -> tuple[int, ...]:
  is_list = isinstance(sizes, (tuple, list)) or hasattr(sizes, "as_list")
  found = tuple(sizes) if is_list else ()
  if not is_list or any(isinstance(size, bool) or not hasattr(size, "__index__") or size < 1 for size in found):
    raise ValueError(f"input_shapes must have tuples of positive integers, without the batch; got {sizes!r}.")
  return tuple(int(size) for size in found)


def _layer(tensor: Any) -> Any:
  """Returns the layer, or the operation of Keras 3, that a symbolic tensor comes from."""
  history = tensor._keras_history
  return getattr(history, "layer", None) or history.operation


def valid(name: str) -> str:
  """Returns a name as a file's signature has it."""
  return re.sub(r"\W", "_", name)


def _is_automatic(model: Any, tensor: Any, name: str, kind: str) -> bool:
  """Returns whether Keras chose the name of an input or of the layer of an output."""
  if kind == "input":
    first = next((layer.name for layer in model.layers if not hasattr(layer, "sparse")), "")
    return bool(_AUTOMATIC_INPUT.fullmatch(name)) or name == valid(f"{first}_input")
  layer = _layer(tensor)
  kinds = type(getattr(layer, "layer", layer)).__name__  # Inside tfmot's wrapper.
  snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", kinds)).lower()
  automatic = "model" if kinds == "Functional" else snake
  return bool(re.fullmatch(rf"({automatic}|{snake})(_\d+)?", name)) or kinds in ("TFOpLambda", "SlicingOpLambda")
