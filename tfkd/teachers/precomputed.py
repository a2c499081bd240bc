"""A teacher whose outputs were computed beforehand and are part of the data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfkd.features import ModelOutputs
from tfkd.losses import TopK
from tfkd.teachers.cache_format import TOP_K


class Precomputed:
  """Reads the teacher's outputs from the batch, at no cost.

  The data set yields `((inputs, teacher_outputs), labels)`; the student reads `inputs`. The outputs are a tensor, or a
  dict or tuple of tensors (`tf.data` converts lists to one tensor). Objectives on layers need
  `teacher_outputs` to be the pair of the outputs and a dict from layer name to feature. Correct only if every epoch
  shows the same pixels: under random augmentation the outputs would belong to another image.

  An output of which only the largest logits are known is a dict of "values" [batch, ..., k], "classes" [batch, ..., k]
  and "log_rest" [batch, ...], see `tfkd.losses.TopK`.

  Outputs and inputs that do not match cannot be detected for arrays of your own, nor for arrays that were computed from
  `CachedTeacher.outputs`, such as `np.array(cached.outputs)`. `CachedTeacher.zip` and `tfkd.data.batches` check cached
  outputs as they are.
  """

  def __call__(self, inputs: Any, features: Sequence[str] = ()) -> ModelOutputs:
    """Returns the outputs of the batch, and the features of the named layers.

    Raises:
      ValueError: the batch has no teacher outputs, or no features of these layers.
    """
    outputs = tf.nest.map_structure(lambda t: tf.stop_gradient(tf.cast(t, tf.float32)), _split(inputs)[1])
    outputs = _with_top_k(outputs)
    stored = {}
    if isinstance(outputs, (tuple, list)) and len(outputs) == 2 and isinstance(outputs[1], dict):
      outputs, stored = outputs
    missing = sorted(set(features) - set(stored))  # AutoGraph cannot read `:=`.
    if missing:
      raise ValueError(
        f"the batch has no teacher features of {', '.join(missing)}; it has {', '.join(stored) or 'none'}: with "
        "objectives on layers a Precomputed teacher expects ((inputs, (outputs, {layer: feature})), labels)."
      )
    return ModelOutputs(outputs, {layer: stored[layer] for layer in features})

  def describe(self) -> dict[str, Any]:
    """Nothing: the teacher is unknown."""
    return {}

  def feature_shapes(self, features: Sequence[str]) -> dict[str, tf.TensorShape] | None:
    """None: unknown before the first batch."""

  def student_inputs(self, inputs: Any) -> Any:
    """The first of the pair."""
    return _split(inputs)[0]


def _with_top_k(structure: Any) -> Any:
  """Makes a `tfkd.losses.TopK` of each dict with the keys `TOP_K`."""
  if isinstance(structure, Mapping):
    if set(structure) == set(TOP_K):
      values, classes, log_rest = (structure[key] for key in TOP_K)
      return TopK(values, tf.cast(classes, tf.int32), log_rest)
    return {key: _with_top_k(part) for key, part in structure.items()}
  if isinstance(structure, (tuple, list)):
    return type(structure)([_with_top_k(part) for part in structure])
  return structure


def _split(inputs: Any) -> Any:
  if not (isinstance(inputs, (tuple, list)) and len(inputs) == 2):
    raise ValueError(
      "a Precomputed teacher expects batches of ((inputs, teacher_outputs), labels); got inputs of type "
      f"{type(inputs).__name__}. Zip the teacher's outputs into the data set, and into the validation data."
    )
  return inputs
