"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import functools

import tensorflow as tf
import tf_keras as keras

from tfkd.models.family import Family
from tfkd.preprocessing import HALVES

layers = keras.layers
_EPSILON = 1e-6
_HEAD_WIDTH = 64
# Width of the tokens by name, from the paper and from Touvron et al. 2021, arXiv:2012.12877.
_WIDTHS = {"tiny": 192, "small": 384, "base": 768}


def vit(
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (224, 224, 3),
  patch_size: int = 16,
  width: int = 768,
  depth: int = 12,
  name: str = "vit",
) -> keras.Model:
  """Builds a vision transformer with a class token and learned positions, as timm and Hugging Face do.

  Each block normalizes before attention and before its two dense layers, which expand the width four times, with GELU
  between them; heads have 64 channels. Outputs of the blocks are layers `block0`, `block1` and so on: tokens
  [batch, 1 + patches, width], the class token first. `embedding` is the class token after the last normalization.

  Args:
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels), multiples of the patch size.
    patch_size: height and width of a patch, in pixels.
    width: channels of a token, a multiple of 64: 192 for Ti, 384 for S, 768 for B.
    depth: number of blocks.
    name: name of the model.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: height or width is not a multiple of patch_size, width is not a multiple of 64, or there are fewer than
      two classes.
  """
  if input_shape[0] % patch_size or input_shape[1] % patch_size:
    raise ValueError(f"patches of {patch_size} pixels do not divide images of input_shape={tuple(input_shape)}.")
  if width % _HEAD_WIDTH:
    raise ValueError(f"width must be a multiple of {_HEAD_WIDTH}, the width of a head; got {width}.")
  if num_classes < 2:
    raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
  inputs = keras.Input(input_shape, name="images")
  x = layers.Conv2D(width, patch_size, patch_size, name="patches")(inputs)
  x = layers.Reshape((x.shape[1] * x.shape[2], width), name="patch_tokens")(x)
  x = Tokens(name="tokens")(x)
  for number in range(depth):
    x = _block(x, f"block{number}")
  x = _normalized(x, "norm")
  x = FirstToken(name="embedding")(x)
  # Losses read float32 logits under mixed precision too.
  return keras.Model(inputs, layers.Dense(num_classes, dtype="float32", name="logits")(x), name=name)


def _block(x, name):
  width = x.shape[-1]
  y = _normalized(x, f"{name}_norm1")
  y = layers.MultiHeadAttention(width // _HEAD_WIDTH, _HEAD_WIDTH, name=f"{name}_attention")(y, y)
  x = layers.Add(name=f"{name}_add")([x, y])
  y = _normalized(x, f"{name}_norm2")
  y = layers.Dense(4 * width, activation="gelu", name=f"{name}_dense1")(y)
  y = layers.Dense(width, name=f"{name}_dense2")(y)
  return layers.Add(name=name)([x, y])


def _normalized(x, name):
  return layers.LayerNormalization(epsilon=_EPSILON, name=name)(x)


@keras.utils.register_keras_serializable(package="tfkd")
class Tokens(layers.Layer):
  """Prepends a learned class token to the tokens of patches, and adds a learned position embedding to each.

  Input: float [batch, patches, width]. Output: float [batch, 1 + patches, width].
  """

  def build(self, input_shape):
    _, patches, width = input_shape
    self.class_token, self.positions = (
      self.add_weight(name, (1, tokens, width), initializer=keras.initializers.TruncatedNormal(stddev=0.02))
      for name, tokens in (("class_token", 1), ("positions", 1 + patches))
    )
    super().build(input_shape)

  def call(self, inputs):
    token = tf.broadcast_to(tf.cast(self.class_token, inputs.dtype), [tf.shape(inputs)[0], 1, inputs.shape[-1]])
    return tf.concat([token, inputs], axis=1) + tf.cast(self.positions, inputs.dtype)


@keras.utils.register_keras_serializable(package="tfkd")
class FirstToken(layers.Layer):
  """Selects the first token: float [batch, tokens, width] to float [batch, width]."""

  def call(self, inputs):
    return inputs[:, 0]


def _named(match):
  if int(match[2]) < 1:
    return None
  return functools.partial(vit, patch_size=int(match[2]), width=_WIDTHS[match[1]], name=match[0])


FAMILIES = (
  Family(
    rf"vit_({'|'.join(_WIDTHS)})(\d+)",
    f"vit_<{', '.join(_WIDTHS)}><patch size in pixels>, as in vit_tiny16",
    _named,
    HALVES,
  ),
)
