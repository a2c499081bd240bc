"""Vision transformers: published sizes, and the logits of Hugging Face from the same weights."""

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from tfkd import models, quantization
from tfkd.features.taps import Reader

IMAGES = np.random.default_rng(1).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)


@pytest.mark.parametrize(
  "name, shape, without_head",
  [
    ("vit_tiny16", (224, 224, 3), 5_524_416),
    ("vit_small16", (224, 224, 3), 21_665_664),
    ("vit_base16", (224, 224, 3), 85_798_656),
    ("vit_tiny4", (32, 32, 3), 192 * 48 + 192 + 192 + 65 * 192 + 12 * 444_864 + 384),
  ],
)
def test_numbers_of_parameters_are_published_ones(name, shape, without_head):
  with tf.Graph().as_default():  # Does not compute initial values.
    model = models.build(name, 10, shape)
  width = model.get_layer("embedding").output_shape[-1]
  assert model.count_params() == without_head + 10 * width + 10
  assert model.output_shape == (None, 10)


def test_blocks_can_be_tapped():
  model = models.vit(3, (16, 24, 3), 8, 64, 2)
  _, found = Reader(model, ["block0", "block1", "embedding"])(IMAGES[:, :16, :24])
  assert [t.shape.as_list() for t in found.values()] == [[2, 7, 64], [2, 7, 64], [2, 64]]


def test_a_transformer_trains_saves_and_loads(tmp_path):
  model = models.vit(3, (16, 16, 3), 4, 64, 2)
  model.compile("adam", "mse")
  x = IMAGES[:, :16, :16]
  model.fit(x, np.eye(3)[:2], epochs=2, verbose=0)
  quantization.save(model, str(tmp_path / "vit.keras"))
  loaded = quantization.load(str(tmp_path / "vit.keras"))
  np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
  "options, words",
  [
    ({"input_shape": (30, 32, 3)}, "patches of 16 pixels do not divide"),
    ({"width": 100}, "multiple of 64"),
    ({"num_classes": 1}, "at least 2"),
  ],
)
def test_wrong_sizes_raise(options, words):
  with pytest.raises(ValueError, match=words):
    models.vit(**{"input_shape": (32, 32, 3), **options})


def _hugging_face(width=192, depth=12, patch=16, patches=196, classes=10, seed=0):
  """Arrays with the names and shapes of Hugging Face's files."""
  rng = np.random.default_rng(seed)
  state = {}

  def dense(name, out, *into):
    scale = np.sqrt(1 / np.prod(into))
    state[f"{name}.weight"], state[f"{name}.bias"] = rng.normal(0, scale, (out, *into)), rng.normal(0, 0.1, out)

  def norm(name):
    state[f"{name}.weight"], state[f"{name}.bias"] = rng.uniform(0.5, 1.5, width), rng.normal(0, 0.1, width)

  state["vit.embeddings.cls_token"] = rng.normal(0, 0.5, (1, 1, width))
  state["vit.embeddings.position_embeddings"] = rng.normal(0, 0.5, (1, 1 + patches, width))
  dense("vit.embeddings.patch_embeddings.projection", width, 3, patch, patch)
  for block in range(depth):
    prefix = f"vit.encoder.layer.{block}"
    norm(f"{prefix}.layernorm_before")
    for part in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
      dense(f"{prefix}.{part}", width, width)
    dense(f"{prefix}.attention.output.dense", width, width)
    norm(f"{prefix}.layernorm_after")
    dense(f"{prefix}.intermediate.dense", 4 * width, width)
    dense(f"{prefix}.output.dense", width, 4 * width)
  norm("vit.layernorm")
  dense("classifier", classes, width)
  return {name: np.ascontiguousarray(array, np.float32) for name, array in state.items()}


def _timm(state):
  """The same weights under timm's names."""
  renamed = {}
  for name, array in state.items():
    for ours, theirs in (
      ("vit.embeddings.cls_token", "cls_token"), ("vit.embeddings.position_embeddings", "pos_embed"),
      ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"), ("vit.encoder.layer", "blocks"),
      ("attention.output.dense", "attn.proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
      ("layernorm_before", "norm1"), ("layernorm_after", "norm2"), ("vit.layernorm", "norm"), ("classifier", "head"),
    ):  # fmt: skip
      name = name.replace(ours, theirs)
    renamed[name] = array
  joint = {}
  for name, array in renamed.items():
    if "attention.attention.query" in name:
      parts = [renamed[name.replace("query", part)] for part in ("query", "key", "value")]
      joint[name.replace("attention.attention.query", "attn.qkv")] = np.concatenate(parts)
    elif "attention.attention" not in name:
      joint[name] = array
  return joint


def _write(path, state):
  save_file(state, str(path))
  return str(path)


# transformers 5.23 and PyTorch 2.13's logits of `_hugging_face()` on `IMAGES`.
GOLDEN = [
  [0.50461, 0.20264, 0.04960, 0.80717, 0.74894, 2.18034, 0.28882, 1.45433, -0.60807, -2.07584],
  [0.21936, 0.37509, -0.14770, 0.72381, -0.12604, 2.57513, 0.21566, 1.27428, -0.86524, -2.16719],
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
  return models.build("vit_tiny16", 10, (224, 224, 3))


def _check_logits(model, path, expected):
  model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])  # So that every weight must be loaded.
  models.load_torch_weights(model, path)
  np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, atol=1e-4)


@pytest.mark.parametrize("names", ["hugging_face", "timm"])
def test_logits_equal_the_recorded_ones_of_hugging_face(names, tiny, tmp_path):
  state = _hugging_face() if names == "hugging_face" else _timm(_hugging_face())
  _check_logits(tiny, _write(tmp_path / "vit.safetensors", state), GOLDEN)


def test_logits_equal_hugging_face(tiny, tmp_path):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  folder = tmp_path / "vit"
  configuration = transformers.ViTConfig(
    hidden_size=192, num_attention_heads=3, intermediate_size=768, num_labels=10, layer_norm_eps=1e-6
  )
  reference = transformers.ViTForImageClassification(configuration)
  reference.save_pretrained(folder)
  save_file(_hugging_face(), str(folder / "model.safetensors"), {"format": "pt"})
  reference = transformers.ViTForImageClassification.from_pretrained(folder).eval()
  with torch.no_grad():
    expected = reference(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2))).logits.numpy()
  torch.save(reference.state_dict(), str(tmp_path / "in_memory.pth"))
  for path in (folder / "model.safetensors", tmp_path / "in_memory.pth"):
    _check_logits(tiny, str(path), expected)
  np.testing.assert_allclose(expected, GOLDEN, atol=1e-4)


def _small(tmp_path, input_shape=(24, 24, 3), classes=3, head=True, **changed):
  """A model with weights of a file of 3x3 patches and four classes."""
  state = _hugging_face(64, 2, 8, 9, 4) | changed
  model = models.vit(classes, input_shape, 8, 64, 2)
  models.load_torch_weights(model, _write(tmp_path / "w.safetensors", state), head)
  return model, state


def test_head_false_loads_all_layers_but_the_last(tmp_path):
  model, state = models.vit(3, (24, 24, 3), 8, 64, 2), _hugging_face(64, 2, 8, 9, 4)
  head = [w.numpy() for w in model.get_layer("logits").weights]
  models.load_torch_weights(model, _write(tmp_path / "w.safetensors", state), head=False)
  for before, after in zip(head, model.get_layer("logits").weights, strict=True):
    np.testing.assert_array_equal(before, after)
  np.testing.assert_array_equal(model.get_layer("norm").gamma, state["vit.layernorm.weight"])


def test_position_embeddings_are_interpolated_for_other_sizes(tmp_path):
  changed = {"vit.embeddings.position_embeddings": np.ones((1, 10, 64), np.float32)}
  changed["vit.embeddings.position_embeddings"][:, 0] = 5
  model, _ = _small(tmp_path, (40, 16, 3), head=False, **changed)
  positions = model.get_layer("tokens").positions.numpy()
  assert positions.shape == (1, 11, 64)
  np.testing.assert_array_equal(positions[:, 0], 5)
  np.testing.assert_allclose(positions[:, 1:], 1, rtol=1e-6)
  # A ramp over rows stays a ramp over rows.
  ramp = np.repeat(np.arange(3.0), 3).astype(np.float32)
  changed["vit.embeddings.position_embeddings"][0, 1:] = ramp[:, None]
  model, _ = _small(tmp_path, (48, 48, 3), head=False, **changed)
  grid = model.get_layer("tokens").positions.numpy()[0, 1:, 0].reshape(6, 6)
  assert (np.diff(grid[:, 0]) > 0).all() and np.ptp(grid, axis=1).max() < 1e-5


@pytest.mark.parametrize(
  "changed, words",
  [
    ({}, r"head.weight gives \(64, 4\) for logits, which has \(64, 3\)"),
    ({"vit.pooler.dense.bias": np.zeros(3, np.float32)}, "vit.pooler.dense.bias belongs to no layer"),
    ({"vit.layernorm.weight": np.zeros(5, np.float32)}, r"norm.weight gives \(5,\)"),
    (
      {"vit.encoder.layer.1.attention.attention.query.weight": np.zeros((3, 64), np.float32)},
      r"blocks.1.attn.query.weight gives \(64, 3\) for block1_attention",
    ),
  ],
)
def test_weights_that_do_not_fit_raise_with_their_names(tmp_path, changed, words):
  with pytest.raises(ValueError, match=words):
    _small(tmp_path, **changed)


def test_missing_keys_raise_with_their_names(tmp_path):
  state = _timm(_hugging_face(64, 2, 8, 9, 4))
  del state["blocks.1.attn.qkv.bias"]
  with pytest.raises(ValueError, match=r"blocks.1.attn.query.bias is missing.*value.bias is missing"):
    models.load_torch_weights(models.vit(4, (24, 24, 3), 8, 64, 2), _write(tmp_path / "w.safetensors", state))
