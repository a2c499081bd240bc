"""A teacher whose outputs were computed before and travel with the data."""

import tensorflow as tf


class Precomputed:
  """Reads the teacher's outputs from the batch, at no cost.

  The data set yields `((inputs, teacher_outputs), labels)`; the student sees `inputs`. Objectives on layers need
  `teacher_outputs` to be the pair of the outputs and a dict from layer name to feature. Right only where every epoch
  shows the same pixels: under random augmentation the outputs would belong to another image.

  Whether outputs belong to their inputs cannot be checked for arrays of your own, nor for what was computed from
  `CachedTeacher.outputs`, such as `np.array(cached.outputs)`. `CachedTeacher.zip` and `tfkd.data.batches` check cached
  outputs as they are.
  """

  def __call__(self, inputs):
    outputs = self._outputs(inputs)
    return outputs[0] if _has_features(outputs) else outputs

  def reader(self, layers):
    """A function from a batch to the pair of the outputs and a dict of the named layers' features."""

    def read(inputs):
      outputs = self._outputs(inputs)
      missing = set(layers) - set(outputs[1] if _has_features(outputs) else ())
      if missing:
        raise ValueError(
          f"the batch has no teacher features of {', '.join(sorted(missing))}: with objectives on layers a Precomputed "
          "teacher expects ((inputs, (outputs, {layer: feature})), labels)."
        )
      return outputs

    return read

  def tap_shapes(self, layers):
    """Unknown before the first batch: None."""

  def student_inputs(self, inputs):
    """What the student sees of the batch: the first of the pair."""
    return self._split(inputs)[0]

  def _outputs(self, inputs):
    return tf.nest.map_structure(lambda t: tf.stop_gradient(tf.cast(t, tf.float32)), self._split(inputs)[1])

  def _split(self, inputs):
    if not (isinstance(inputs, (tuple, list)) and len(inputs) == 2):
      raise ValueError(
        "a Precomputed teacher expects batches of ((inputs, teacher_outputs), labels); got inputs of type "
        f"{type(inputs).__name__}. Zip the teacher's outputs into the data set, validation data too."
      )
    return inputs


def _has_features(outputs):
  return isinstance(outputs, (tuple, list)) and len(outputs) == 2 and isinstance(outputs[1], dict)
