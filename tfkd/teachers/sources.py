"""Teachers from where people keep them."""

import os
from collections.abc import Callable

import tensorflow as tf

from tfkd.teachers.frozen import Frozen


def saved_model(
  path: str | os.PathLike, preprocess: Callable | None = None, signature: str = "serving_default"
) -> Frozen:
  """A teacher from a SavedModel folder, of whatever library wrote it.

  Args:
    path: folder with `saved_model.pb`.
    preprocess: see `Frozen`.
    signature: which of its functions to call; it takes one tensor and gives one, the logits.

  Returns:
    A `Frozen` teacher.

  Raises:
    ValueError: there is no such folder or signature, or it takes or gives several tensors.
  """
  if not os.path.exists(os.path.join(path, "saved_model.pb")):
    raise ValueError(f"{path} is no SavedModel: expected a folder with saved_model.pb.")
  loaded = tf.saved_model.load(path)
  if signature not in loaded.signatures:
    raise ValueError(f"{path} has no signature {signature!r}: expected one of {', '.join(loaded.signatures)}.")
  function = loaded.signatures[signature]
  names, outputs = list(function.structured_input_signature[1]), list(function.structured_outputs)
  if len(names) != 1 or len(outputs) != 1:
    raise ValueError(f"{signature} of {path} takes {names} and gives {outputs}: expected one tensor each.")

  def call(inputs, loaded=loaded):  # The folder's variables live as long as `loaded` does.
    return function(**{names[0]: inputs})[outputs[0]]

  return Frozen(call, preprocess)


def keras_hub(preset: str, num_classes: int | None = None) -> Frozen:
  """An image classifier of KerasHub, with the preprocessing that it was trained with.

  Needs `pip install tfkd[vit]`.

  Args:
    preset: name, as "vit_base_patch16_224_imagenet", or a folder to which a preset was saved.
    num_classes: makes a new last layer of so many classes, which has to be trained; None keeps the preset's own.

  Returns:
    A `Frozen` teacher of images in [0, 1]; its `model` is the Keras 3 classifier.

  Raises:
    ImportError: KerasHub is not installed.
    RuntimeError: Keras 3 runs on another backend than TensorFlow.
    FileNotFoundError: the preset cannot be downloaded; says which files to fetch, and where to put them.
    ValueError: there is no such preset.
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
      f"{preset} could not be downloaded ({type(error).__name__}): where there is a network, fetch from {page} "
      "config.json, model.weights.h5, preprocessor.json, image_converter.json, task.json and task.weights.h5, put them "
      "into a folder, and give that folder as the preset."
    ) from error
  converter = model.preprocessor.image_converter
  return Frozen(model, lambda images: converter(255.0 * tf.cast(images, tf.float32)))
