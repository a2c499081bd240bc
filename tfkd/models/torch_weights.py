"""Loads weights of PyTorch models into networks of `tfkd.models`."""

import math
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.models._resized import network_of
from tfkd.models._vit import Tokens
from tfkd.models.torch_files import read_state_dict

# Keras' variables by PyTorch's names.
_VARIABLES = {
  "kernel": "weight", "depthwise_kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
  "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
# Hugging Face's names of a vision transformer, in files and in memory, to timm's.
_HUGGING_FACE = (
  (r"^vit\.embeddings\.cls_token$", "cls_token"),
  (r"^vit\.embeddings\.position_embeddings$", "pos_embed"),
  (r"^vit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
  (r"^vit\.(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
  (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
  (r"\.attention\.q_proj\.", ".attn.query."),
  (r"\.attention\.k_proj\.", ".attn.key."),
  (r"\.attention\.v_proj\.", ".attn.value."),
  (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
  (r"\.intermediate\.dense\.", ".mlp.fc1."),
  (r"\.output\.dense\.", ".mlp.fc2."),
  (r"\.layernorm_before\.", ".norm1."),
  (r"\.layernorm_after\.", ".norm2."),
  (r"^vit\.layernorm\.", "norm."),
  (r"^classifier\.", "head."),
)

# Names of efficientnet-lite-pytorch, in a block and outside of blocks.
_LITE_BLOCK = {
  "expand": "_expand_conv", "expand_bn": "_bn0", "depthwise": "_depthwise_conv", "depthwise_bn": "_bn1",
  "project": "_project_conv", "project_bn": "_bn2",
}  # fmt: skip
_LITE_ENDS = {"stem": "_conv_stem", "stem_bn": "_bn0", "head": "_conv_head", "head_bn": "_bn1", "logits": "_fc"}


def load_torch_weights(model: keras.Model, path: str, head: bool = True) -> None:
  """Loads a PyTorch checkpoint into the matching network of `tfkd.models`.

  Reads names of torchvision and timm for `resnet18`, `resnet34` and `resnet50`, of timm and Hugging Face for `vit`, and
  of the package efficientnet-lite-pytorch for `efficientnet_lite`.
  Position embeddings of another image size are interpolated (bicubic).

  Args:
    model: network with the depth, width, stem and patch size of the file, and its number of classes unless head is
      False. If the model resizes its images (see `resized`), the weights are those of the network inside.
    path: see `read_state_dict`.
    head: load the last dense layer too; False leaves it unchanged, to be trained on other classes.

  Raises:
    ValueError: keys are missing, unknown or of another shape. The message lists them; the model is unchanged.
  """
  model = network_of(model)
  is_vit = any(isinstance(layer, Tokens) for layer in model.layers)
  names = _vit_key if is_vit else _lite_keys(model) or _resnet_key
  state = {name: tensor for name, tensor in read_state_dict(path).items() if not name.endswith("num_batches_tracked")}
  if is_vit:
    state = _as_timm(state)
  weights, problems = {}, []
  for layer in model.layers:
    keys = {names(layer.name, variable): variable for variable in layer.weights}
    if layer.name == "logits" and not head:
      for key in keys:
        state.pop(key, None)
      continue
    tensors = {key: _as_keras(state.pop(key), variable) for key, variable in keys.items() if key in state}
    if "pos_embed" in tensors:
      tensors["pos_embed"] = _interpolated(tensors["pos_embed"], model.get_layer("patches").output_shape[1:3])
    problems += [f"{key} is missing" for key in keys if key not in tensors]
    problems += [
      f"{key} gives {tensor.shape} for {layer.name}, which has {tuple(keys[key].shape)}"
      for key, tensor in tensors.items()
      if tensor.shape != tuple(keys[key].shape)
    ]
    weights[layer.name] = list(tensors.values())
  problems += [f"{key} belongs to no layer" for key in state]
  if problems:
    shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
    raise ValueError(
      f"{path} does not fit {model.name}: {shown}. Depth, width, stem or patches, and classes must equal those of the "
      "file; head=False skips the last layer."
    )
  for name, arrays in weights.items():
    model.get_layer(name).set_weights(arrays)


def _resnet_key(layer, variable):
  """Returns the name of a variable in torchvision's residual networks."""
  layer = re.sub(r"^layer(\d+)_block(\d+)_", r"layer\1.\2.", layer)
  layer = layer.replace("shortcut_bn", "downsample.1").replace("shortcut", "downsample.0").replace("logits", "fc")
  layer = re.sub(r"conv(\d+)_bn$", r"bn\1", layer)
  return f"{layer}.{_VARIABLES[_kind(variable)]}"


def _lite_keys(model: keras.Model) -> Callable[[str, tf.Variable], str] | None:
  """Returns the function of names in efficientnet-lite-pytorch, or None if the model is another network."""
  prefixes = [m[0] for layer in model.layers if (m := re.match(r"layer\d+_block\d+(?=_depthwise$)", layer.name))]
  if not any(layer.name == f"{prefix}_project" for layer in model.layers for prefix in prefixes[:1]):
    return None
  prefixes.sort(key=lambda prefix: [int(number) for number in re.findall(r"\d+", prefix)])
  blocks = {prefix: f"_blocks.{number}" for number, prefix in enumerate(prefixes)}
  # A stage whose last block is no sum ends in the batch normalisation of that block, which has the name of the stage.
  ends = {prefix.partition("_")[0]: f"{block}._bn2" for prefix, block in blocks.items()}

  def names(layer, variable):
    prefix, part = (m[1], m[2]) if (m := re.fullmatch(r"(layer\d+_block\d+)_(\w+)", layer)) else ("", layer)
    found = f"{blocks[prefix]}.{_LITE_BLOCK[part]}" if prefix else (_LITE_ENDS | ends)[layer]
    return f"{found}.{_VARIABLES[_kind(variable)]}"

  return names


def _vit_key(layer: str, variable: tf.Variable) -> str:
  """Returns the name of a variable in timm's vision transformers, with separate query, key and value."""
  if layer == "tokens":
    return {"class_token": "cls_token", "positions": "pos_embed"}[_kind(variable)]
  layer = {"patches": "patch_embed.proj", "logits": "head"}.get(layer, layer)
  layer = re.sub(r"^block(\d+)_", r"blocks.\1.", layer)
  if layer.endswith(".attention"):
    part = variable.name.split("/")[-2]
    layer = layer.removesuffix("attention") + ("attn.proj" if part == "attention_output" else f"attn.{part}")
  layer = re.sub(r"dense(\d+)$", r"mlp.fc\1", layer)
  return f"{layer}.{_VARIABLES[_kind(variable)]}"


def _kind(variable):
  return re.search(r"(\w+?)(_\d+)?(:\d+)?$", variable.name.split("/")[-1])[1]


def _as_keras(tensor, variable):
  """Transposes (out, in, ...) to (..., in, out), or (..., out, 1) if depthwise, and splits the heads of attention."""
  if _kind(variable) == "depthwise_kernel" and tensor.ndim == 4:
    return tensor.transpose(2, 3, 0, 1)
  if _kind(variable) == "kernel" and tensor.ndim > 1:
    tensor = tensor.transpose(*range(2, tensor.ndim), 1, 0)
  is_of_heads = "_attention/" in variable.name and math.prod(tensor.shape) == math.prod(variable.shape)
  return tensor.reshape(variable.shape) if is_of_heads else tensor


def _as_timm(state):
  """Renames Hugging Face's keys to timm's, and splits timm's joint matrices into query, key and value."""
  found = {}
  for name, tensor in state.items():
    for pattern, replacement in _HUGGING_FACE:
      name = re.sub(pattern, replacement, name)
    if ".qkv." in name and len(tensor) % 3 == 0:
      parts = zip(("query", "key", "value"), np.split(tensor, 3), strict=True)
      found |= {name.replace("qkv", part): array for part, array in parts}
    else:
      found[name] = tensor
  return found


def _interpolated(positions, grid):
  """Interpolates position embeddings [1, 1 + patches, width] to another grid; that of the class token is kept."""
  side = math.isqrt(positions.shape[1] - 1) if positions.ndim == 3 else 0
  if not side or positions.shape[1] - 1 != side**2 or grid == (side, side):
    return positions
  token, patches = positions[:, :1], positions[:, 1:]
  resized = tf.image.resize(patches.reshape(1, side, side, -1), grid, "bicubic").numpy()
  return np.concatenate([token, resized.reshape(1, math.prod(grid), -1)], axis=1)
