"""PyTorch's files are read whole, and nothing in them runs."""

import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from tfkd import models
from tfkd.models.torch_files import read_state_dict
from tfkd.models.torch_weights import load_torch_weights


def _state_dict(depth_blocks, expansion, classes, seed=0):
  """Arrays with torchvision's names and shapes; statistics as they are after training."""
  rng = np.random.default_rng(seed)
  state = {}

  def convolution(name, bn, out, into, kernel):
    state[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / (into * kernel**2)), (out, into, kernel, kernel))
    state[f"{bn}.weight"], state[f"{bn}.bias"] = rng.uniform(0.2, 0.8, out), rng.normal(0, 0.1, out)
    state[f"{bn}.running_mean"], state[f"{bn}.running_var"] = rng.normal(0, 0.1, out), rng.uniform(0.5, 1.5, out)
    state[f"{bn}.num_batches_tracked"] = np.array(7)

  convolution("conv1", "bn1", 64, 3, 7)
  into = 64
  for stage, blocks in enumerate(depth_blocks):
    channels = 64 * 2**stage
    for block in range(blocks):
      name = f"layer{stage + 1}.{block}"
      kernels = (3, 3) if expansion == 1 else (1, 3, 1)
      sizes = [into] + [channels] * (len(kernels) - 1) + [channels * expansion]
      for i, kernel in enumerate(kernels):
        convolution(f"{name}.conv{i + 1}", f"{name}.bn{i + 1}", sizes[i + 1], sizes[i], kernel)
      if block == 0 and (stage > 0 or expansion > 1):
        convolution(f"{name}.downsample.0", f"{name}.downsample.1", channels * expansion, into, 1)
      into = channels * expansion
  state["fc.weight"], state["fc.bias"] = rng.normal(0, 0.05, (classes, into)), rng.normal(0, 0.1, classes)
  return {name: np.ascontiguousarray(a, np.int64 if a.dtype.kind == "i" else np.float32) for name, a in state.items()}


RESNETS = {
  "resnet18": (models.resnet18, (2, 2, 2, 2), 1),
  "resnet34": (models.resnet34, (3, 4, 6, 3), 1),
  "resnet50": (models.resnet50, (3, 4, 6, 3), 4),
}


def _write(path, state):
  save_file(state, str(path))
  return str(path)


IMAGES = np.random.default_rng(1).normal(size=(3, 97, 65, 3)).astype(np.float32)
# transformers 5.23 and PyTorch 2.13's logits of `_state_dict(blocks, 1, 11)` on `IMAGES`.
GOLDEN = {
  "resnet18": [
    [0.04017, -0.06339, -0.49064, -0.04960, -0.14946, -0.09166, 0.36572, 0.15727, -0.30930, 0.10107, -0.46393],
    [-0.00130, -0.09993, -0.47462, -0.06795, -0.13652, -0.08813, 0.38369, 0.19087, -0.24111, 0.06451, -0.45733],
    [0.03043, -0.12667, -0.50462, -0.01818, -0.17035, -0.09378, 0.42990, 0.17295, -0.28197, 0.10927, -0.44851],
  ],
  "resnet34": [
    [0.40398, -0.94872, 1.05067, 0.87512, -0.85271, 0.16953, 0.04263, -0.02567, -0.49140, -0.00385, 0.72151],
    [0.37600, -0.96101, 1.03402, 0.88583, -0.89071, 0.19645, 0.03815, -0.04124, -0.53503, -0.00049, 0.64174],
    [0.43080, -0.94069, 1.08536, 0.84526, -0.82971, 0.20633, 0.01075, -0.01105, -0.46764, 0.04505, 0.78985],
  ],
}  # fmt: skip


@pytest.mark.parametrize("name", RESNETS)
def test_every_key_is_assigned_and_logits_match_stored_ones_of_hugging_face(name, tmp_path):
  build, blocks, expansion = RESNETS[name]
  state = _state_dict(blocks, expansion, 11)
  model = build(11, (97, 65, 3), "imagenet")
  load_torch_weights(model, _write(tmp_path / "w.safetensors", state))
  block = model.get_layer("layer3_block1_conv2")
  np.testing.assert_array_equal(block.kernel, state["layer3.1.conv2.weight"].transpose(2, 3, 1, 0))
  bn = model.get_layer("layer2_block0_shortcut_bn")
  for variable, key in ((bn.gamma, "weight"), (bn.beta, "bias"), (bn.moving_mean, "running_mean"), (
    bn.moving_variance, "running_var",
  )):  # fmt: skip
    np.testing.assert_array_equal(variable, state[f"layer2.0.downsample.1.{key}"])
  np.testing.assert_array_equal(model.get_layer("logits").kernel, state["fc.weight"].T)
  loaded = sum(array.size for key, array in state.items() if not key.endswith("tracked"))
  assert model.count_params() == loaded
  if name in GOLDEN:
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), GOLDEN[name], atol=1e-4)


def _hugging_faces(name):
  """torchvision's name of a tensor as Hugging Face's."""
  name = re.sub(r"^layer(\d)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.", name)
  name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
  name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
  name = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", name)
  name = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", name)
  name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
  return name.replace("fc.", "classifier.1.")


def test_logits_match_hugging_face(tmp_path):
  name = "resnet18"
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  build, blocks, expansion = RESNETS[name]
  tensors = {key: torch.from_numpy(array) for key, array in _state_dict(blocks, expansion, 11).items()}
  configuration = transformers.ResNetConfig(
    embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=list(blocks), layer_type="basic", num_labels=11
  )
  reference = transformers.ResNetForImageClassification(configuration).eval()
  reference.load_state_dict({_hugging_faces(key): tensor for key, tensor in tensors.items()})
  with torch.no_grad():
    expected = reference(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())).logits.numpy()
  path = str(tmp_path / "resnet.pth")
  torch.save(tensors, path)
  model = build(11, (97, 65, 3), "imagenet")
  load_torch_weights(model, path)
  np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, atol=1e-4)
  np.testing.assert_allclose(expected, GOLDEN[name], atol=1e-4)


def test_mismatched_weights_raise_and_leave_the_model_unchanged(tmp_path):
  state = _state_dict((2, 2, 2, 2), 1, 11)
  del state["layer2.0.bn1.bias"]
  state["extra"] = np.zeros(3, np.float32)
  path = _write(tmp_path / "w.safetensors", state)
  model = models.resnet18(10, (64, 64, 3), "imagenet")
  before = model.get_weights()
  with pytest.raises(ValueError, match="does not fit resnet18") as error:
    load_torch_weights(model, path)
  for words in ("layer2.0.bn1.bias is missing", "fc.weight gives (512, 11) for logits", "extra belongs to no layer"):
    assert words in str(error.value)
  for a, b in zip(before, model.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)


class _Runs:
  def __reduce__(self):
    return os.system, ("true",)


def _pth(path, content):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", content)
  return str(path)


@pytest.mark.parametrize(
  "content, words",
  [
    (pickle.dumps({"w": _Runs()}), "refers to posix.system, which is not a tensor"),
    (pickle.dumps([1, 2]), "holds no dict of tensors"),
    (pickle.dumps({"w": 3}), "holds no dict of tensors"),
    (b"\x80\x02}q\x00", "not a file of tensors alone"),
    (b"", "not a file of tensors alone"),
  ],
)
def test_other_file_formats_raise(tmp_path, content, words):
  with pytest.raises(ValueError, match=words):
    read_state_dict(_pth(tmp_path / "w.pth", content))


def test_damaged_and_legacy_files_raise(tmp_path):
  for name in ("w.pth", "w.safetensors"):
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
      read_state_dict(str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
      read_state_dict(str(tmp_path / f"no_{name}"))


def test_files_of_torch_save_are_read(tmp_path):
  torch = pytest.importorskip("torch")
  base = torch.arange(24.0).reshape(4, 6)
  tensors = {
    "whole": base, "view": base[1:, ::2].T, "half": base.half(), "long": torch.arange(3), "bool": base > 3,
    "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(base),
  }  # fmt: skip
  for number, wrapped in enumerate(
    (tensors, {"state_dict": tensors, "epoch": 3}, {f"module.{k}": v for k, v in tensors.items()})
  ):
    path = str(tmp_path / f"{number}.pth")
    torch.save(wrapped, path)
    found = read_state_dict(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
      np.testing.assert_array_equal(found[name], tensor.detach().numpy())


def test_tensor_beyond_its_storage_raises(tmp_path):
  torch = pytest.importorskip("torch")
  buffer = io.BytesIO()
  torch.save({"w": torch.zeros(4)}, buffer)
  with zipfile.ZipFile(buffer) as archive:
    files = {name: archive.read(name) for name in archive.namelist()}
  storage = next(name for name in files if "/data/" in name)
  files[storage] = files[storage][:8]
  path = tmp_path / "w.pth"
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  with pytest.raises(ValueError, match="does not fit its storage of 2 numbers"):
    read_state_dict(str(path))


def test_compressed_file_larger_than_declared_raises(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "w.pth"
  torch.save({"w": torch.zeros(1).expand(10**6)}, path)
  with pytest.raises(ValueError, match="does not fit its storage of 1 numbers"):
    read_state_dict(str(path))
  torch.save({"w": torch.zeros(1000)}, path)
  with zipfile.ZipFile(path) as archive:
    files = {name: archive.read(name) for name in archive.namelist()}
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  with pytest.raises(ValueError, match="is compressed; PyTorch writes uncompressed entries"):
    read_state_dict(str(path))
