"""Comparison of models of the two Keras: random weights, and outputs relative to their range."""

import keras as keras3
import numpy as np

TOLERANCE = 1e-5


def randomize(model, seed=0):
  """Moves all weights of a Keras 3 model, and with them the moving statistics, off their initial values."""
  rng = np.random.default_rng(seed)
  for weight in model.weights:
    name = weight.path.split("/")[-1]
    if not weight.dtype.startswith(("float", "bfloat")) or "seed" in weight.path:
      continue
    value = np.asarray(weight)
    # Much larger kernels would make deep networks amplify rounding.
    scale = 0.3 * value.std() if value.ndim > 1 and value.std() else 0.1
    noise = rng.normal(0, scale, value.shape)
    weight.assign(rng.uniform(0.5, 1.5, value.shape) if "variance" in name else value + noise)
  for layer in model._flatten_layers():
    if isinstance(layer, keras3.layers.Normalization) and layer.built:
      layer.finalize_state()
  return model


def difference(one, other):
  """Largest difference of two structures of outputs, relative to the range of each."""
  keras3.tree.assert_same_structure(one, other)
  pairs = zip(keras3.tree.flatten(one), keras3.tree.flatten(other), strict=True)
  found = []
  for a, b in pairs:
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    if not np.issubdtype(a.dtype, np.floating):
      assert a.dtype.kind == b.dtype.kind and np.array_equal(a, b)
      continue
    a, b = a.astype(np.float64), b.astype(np.float64)
    found.append(np.abs(a - b).max() / max(np.ptp(a), 1e-6))
  return max(found, default=0.0)
