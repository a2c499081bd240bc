"""Teachers from SavedModels and KerasHub presets."""

import os
from collections.abc import Callable

import tensorflow as tf

from tfkd.teachers.frozen import Frozen


def saved_model(
  path: str | os.PathLike,
  preprocess: Callable[[tf.Tensor], tf.Tensor] | None = None,
  signature: str = "serving_default",
) -> Frozen:
  """Makes a teacher from a SavedModel directory, whichever library wrote it.

  Args:
    path: directory with `saved_model.pb`.
    preprocess: see `Frozen`.
    signature: name of the function to call, which takes one tensor and returns one, the logits.

  Returns:
    A `Frozen` teacher.

  Raises:
    ValueError: there is no SavedModel at path, or no such signature, or it takes or returns several tensors.
  """
  if not os.path.exists(os.path.join(path, "saved_model.pb")):
    raise ValueError(f"{path} is no SavedModel: expected a directory with saved_model.pb.")
  loaded = tf.saved_model.load(path)
  if signature not in loaded.signatures:
    raise ValueError(f"{path} has no signature {signature!r}: expected one of {', '.join(loaded.signatures)}.")
  function = loaded.signatures[signature]
  names, outputs = list(function.structured_input_signature[1]), list(function.structured_outputs)
  if len(names) != 1 or len(outputs) != 1:
    raise ValueError(f"{signature} of {path} takes {names} and returns {outputs}: expected one tensor each.")

  def call(inputs, loaded=loaded):  # TensorFlow deletes the variables together with `loaded`.
    return function(**{names[0]: inputs})[outputs[0]]

  return Frozen(call, preprocess)


def keras_hub(preset: str, num_classes: int | None = None) -> Frozen:
  """Makes a teacher from an image classifier of KerasHub, with the preprocessing of its training.

  Needs `pip install tfkd[vit]`.

  Args:
    preset: name, such as "vit_base_patch16_224_imagenet", or a directory to which a preset was saved.
    num_classes: size of a new last layer, which has to be trained; None keeps the last layer of the preset.

  Returns:
    A `Frozen` teacher of images in [0, 1]; its `model` is the Keras 3 classifier.

  Raises:
    ImportError: KerasHub is not installed.
    RuntimeError: Keras 3 runs on another backend than TensorFlow.
    FileNotFoundError: the preset cannot be downloaded; the message lists the files to fetch.
    ValueError: unknown preset.
  """
  try:
    import keras
    import keras_hub as hub
  except ImportError as error:
    raise ImportError(f"KerasHub teachers need more packages ({error}): pip install 'tfkd[vit]'.") from error
  if keras.backend.backend() != "tensorflow":
    raise RuntimeError(
      f"Keras 3 runs on {keras.backend.backend()}, and tfkd needs it on TensorFlow: set KERAS_BACKEND=tensorflow."
    )
  options = {} if num_classes is None else {"num_classes": num_classes}
  try:
    model = hub.models.ImageClassifier.from_preset(preset, dtype="float32", **options)
  except OSError as error:
    handle = hub.models.ImageClassifier.presets.get(preset, {}).get("kaggle_handle", preset)
    page = handle.replace("kaggle://", "https://www.kaggle.com/models/")
    raise FileNotFoundError(
      f"{preset} could not be downloaded ({type(error).__name__}): on a machine with network access, fetch from {page} "
      "config.json, model.weights.h5, preprocessor.json, image_converter.json, task.json and task.weights.h5, put them "
      "into a directory, and pass that directory as preset."
    ) from error
  converter = model.preprocessor.image_converter
  return Frozen(model, lambda images: converter(255.0 * tf.cast(images, tf.float32)))
