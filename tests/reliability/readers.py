"""Readers of external files, functions that write a valid file of each, and damage."""

import io
import os
import tarfile
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import tf_keras as keras

from tfkd import data, deploy, models, quantization
from tfkd.data import cifar10, food11, house_numbers, svhn
from tfkd.models.torch_files import read_state_dict
from tfkd.sweeps import Results, Workspace
from tfkd.teachers import CachedTeacher, cache
from tfkd.training.checkpoints import Checkpoints, read_manifest

DOCUMENTED = (ValueError, OSError)
"""Errors that a reader may raise."""
_RNG = np.random.default_rng(0)
_IMAGES = _RNG.integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
_ROWS = [{"experiment": "q1", "seed": seed, "accuracy": seed / 7} for seed in range(4)]


class Reader(NamedTuple):
  """Functions that write and read one kind of file."""

  write: Callable
  """Writes a valid file or directory at a path, and returns the path of the file to damage."""
  read: Callable
  """Returns the content of the path that was given to `write`."""
  is_checked: bool = False
  """Whether a digest detects every change, so that only written content can be read."""


Operation: TypeAlias = tuple[int, float, int]
"""(kind from 0 to 5, position in [0, 1) of the length, value from 0 to 255)."""


def mutated(content: bytes, operations: Sequence[Operation]) -> bytes:
  """Returns content after a sequence of damaging operations."""
  content = bytearray(content)
  for kind, where, value in operations:
    at = int(where * len(content))
    if kind == 0 and content:
      content[at] ^= 1 << value % 8
    elif kind == 1 and content:
      content[at] = value
    elif kind == 2:
      del content[at:]
    elif kind == 3:
      del content[at : at + 1 + value]
    elif kind == 4:
      content[at:at] = bytes([value]) * (1 + value)
    elif kind == 5:
      content[at : at + 8] = b"\xff" * 8  # May overwrite a length.
  return bytes(content)


def _write_mat(path):
  house_numbers.write(path, sizes={"train": 20})
  return os.path.join(path, "train_32x32.mat")


def _write_image(path, folder, suffix):
  from PIL import Image

  os.makedirs(os.path.join(path, folder))
  for i in range(10):
    Image.fromarray(_IMAGES[i]).save(os.path.join(path, folder, f"{i % 11}_{i}{suffix}"))
  return os.path.join(path, folder, f"0_0{suffix}")


def _write_archive(path):
  from PIL import Image

  os.makedirs(path)
  file = os.path.join(path, "cifar.tar")
  with tarfile.open(file, "w") as archive:
    for name in cifar10.CLASSES[:2]:
      for i in range(10):
        buffer = io.BytesIO()
        Image.fromarray(_IMAGES[i]).save(buffer, "JPEG")
        member = tarfile.TarInfo(f"train/{name}/{i}.jpg")
        member.size = buffer.tell()
        buffer.seek(0)
        archive.addfile(member, buffer)
  return file


def _model():
  keras.utils.set_random_seed(0)
  return models.build("svhn_cnnx0.125")


def _write_cache(path, damaged):
  cache(_model(), data.batches(_IMAGES, np.zeros(20, np.int32), 10, scale_pixels=True), os.path.join(path, "c"))
  return os.path.join(path, "c", damaged)


def _write_checkpoint(path, damaged):
  model = _model()
  model.compile("adam", "mse")
  Checkpoints(model, path, epochs=2, steps=10).save()
  return os.path.join(path, "000000-000000000", damaged)


def _write_results(path):
  os.makedirs(path)
  for row in _ROWS:
    Results(os.path.join(path, "results.jsonl")).add(row)
  return os.path.join(path, "results.jsonl")


def _write_config(path):
  Workspace(path).claim({"epochs": 3, "dataset": "svhn"})
  return os.path.join(path, "config.json")


def _write_model(path):
  os.makedirs(path)
  # Not .h5, since the HDF5 library can loop endlessly on a damaged file; a .keras file has a CRC-32.
  quantization.save(_model(), os.path.join(path, "m.keras"))
  return os.path.join(path, "m.keras")


def _write_tflite(path):
  os.makedirs(path)
  student = quantization.quantize(
    _model(), "w8a8", calibration_data=data.batches(_IMAGES, np.zeros(20), 10, scale_pixels=True)
  )
  deploy.to_tflite(student, os.path.join(path, "s.tflite"))
  return os.path.join(path, "s.tflite")


def _write_safetensors(path):
  from safetensors.numpy import save_file

  os.makedirs(path)
  save_file({"conv1.weight": np.ones((4, 3, 3, 3), np.float32)}, os.path.join(path, "s.safetensors"))
  return os.path.join(path, "s.safetensors")


def _write_pack(path):
  os.makedirs(path)
  deploy.pack(quantization.quantize(_model(), "w2a1"), os.path.join(path, "s.pack"))
  return os.path.join(path, "s.pack")


def _in(name, read):
  return lambda path: read(os.path.join(path, name))


def _outputs(path):
  return np.array(CachedTeacher(os.path.join(path, "c")).outputs)


def _evaluated(path):
  return deploy.evaluate(os.path.join(path, "s.tflite"), data.batches(_IMAGES[:4], np.zeros(4), 4, scale_pixels=True))


def _food11(path):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Pillow warns of unusual but readable files.
    return food11.load_arrays("train", path, side=32, on_bad_image="skip")


READERS = {
  ".mat": Reader(_write_mat, _in("train_32x32.mat", svhn.read_mat)),
  "image folder, JPEG": Reader(lambda path: _write_image(path, "training", ".jpg"), _food11),
  "image folder, PNG": Reader(lambda path: _write_image(path, "training", ".png"), _food11),
  "image archive": Reader(_write_archive, _in("cifar.tar", lambda path: cifar10.load_arrays("train", path))),
  "cache, manifest": Reader(lambda path: _write_cache(path, "manifest.json"), _outputs, True),
  "cache, outputs": Reader(lambda path: _write_cache(path, "outputs.bin"), _outputs, True),
  "checkpoint, manifest": Reader(
    lambda path: _write_checkpoint(path, "manifest.json"), _in("000000-000000000", read_manifest), True
  ),
  "checkpoint, variables": Reader(
    lambda path: _write_checkpoint(path, "variables.data-00000-of-00001"), _in("000000-000000000", read_manifest), True
  ),
  "results": Reader(_write_results, lambda path: Results(os.path.join(path, "results.jsonl")).rows(), True),
  "configuration": Reader(_write_config, lambda path: Workspace(path).claim({"epochs": 3, "dataset": "svhn"})),
  "model": Reader(_write_model, _in("m.keras", quantization.load)),
  "TFLite": Reader(_write_tflite, _evaluated, True),
  "pack": Reader(
    _write_pack,
    lambda path: np.concatenate([w.ravel() for w in deploy.unpack(os.path.join(path, "s.pack")).get_weights()]),
  ),
  ".safetensors": Reader(_write_safetensors, _in("s.safetensors", read_state_dict)),
}
