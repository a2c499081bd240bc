"""The published files of MLPerf Tiny's image classification benchmarks, and their weights."""

import os

import numpy as np
import tf_keras as keras

FILES = {
  "IC01 float": "pretrainedResnet.tflite",
  "IC01 int8": "pretrainedResnet_quant.tflite",
  "IC02 float": "pretrainedResnet_large_float.tflite",
  "IC02 int8": "pretrainedResnet_large_int8.tflite",
}
"""Names of the files in a directory, of mlcommons/tiny, `benchmark/training/image_classification/trained_models`."""


def path(directory: str, name: str) -> str:
  """Returns the path of one of `FILES`.

  Raises:
    FileNotFoundError: the directory does not contain it.
  """
  found = os.path.join(directory, FILES[name])
  if not os.path.isfile(found):
    raise FileNotFoundError(
      f"reference_dir={directory} has no file {FILES[name]}: expected the TFLite files of mlcommons/tiny, "
      f"{', '.join(FILES.values())}."
    )
  return found


def load_weights(model: keras.Model, path: str) -> None:
  """Gives a network the weights of a float file, in which batch normalization is part of the convolutions.

  Args:
    model: `mlperf_resnet8` without batch normalization.
    path: TFLite file.

  Raises:
    ValueError: the file has other kernels than the network.
  """
  found = _weights(path)
  for layer in model.layers:
    if layer.weights:
      # Kernels of equal shapes are in the same order in file and network.
      number = next((i for i, (kernel, _) in enumerate(found) if kernel.shape == layer.kernel.shape), None)
      if number is None:
        raise ValueError(f"{path} has no kernel of shape {tuple(layer.kernel.shape)} for layer '{layer.name}'.")
      layer.set_weights(found.pop(number))
  if found:
    raise ValueError(f"{path} has {len(found)} kernels that {model.name} lacks, the first of {found[0][0].shape}.")


def _weights(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns kernels, in Keras' order of axes, and biases, in the order of the operations."""
  from ai_edge_litert import schema_py_generated as schema

  with open(path, "rb") as file:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))
  graph, found = model.subgraphs[0], []
  for operator in graph.operators:
    code = model.operatorCodes[operator.opcodeIndex]
    kind = max(code.builtinCode, code.deprecatedBuiltinCode)
    if kind in (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED):
      kernel, bias = (_array(model, graph.tensors[index]) for index in operator.inputs[1:3])
      # TensorFlow Lite has the output channels first.
      found.append((np.moveaxis(kernel, 0, -1), bias))
  return found


def _array(model, tensor) -> np.ndarray:
  return model.buffers[tensor.buffer].data.view(np.float32).reshape(tensor.shape)
