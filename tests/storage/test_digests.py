"""Digests notice every change of files, arrays and JSON."""

import hashlib

import numpy as np
import pytest

from tfkd.storage.digests import from_checked_json, sha256_of_arrays, sha256_of_bytes, sha256_of_file, to_checked_json

ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.int64)]


def test_files_and_bytes_have_their_sha256(tmp_path):
  (tmp_path / "file").write_bytes(b"abc")
  assert sha256_of_file(tmp_path / "file") == sha256_of_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
  "changed",
  [
    [ARRAYS[0] + np.float32(1e-6), ARRAYS[1]],
    [ARRAYS[0].reshape(3, 2), ARRAYS[1]],
    [ARRAYS[0], ARRAYS[1].view(np.float64)],
    [ARRAYS[1], ARRAYS[0]],
    [ARRAYS[0]],
  ],
  ids=["value", "shape", "type", "order", "number"],
)
def test_arrays_with_another_value_shape_type_order_or_number_differ(changed):
  assert sha256_of_arrays(changed) != sha256_of_arrays(ARRAYS)


def test_memory_layout_does_not_change_the_digest_of_arrays():
  copies = [np.asfortranarray(ARRAYS[0]), np.repeat(ARRAYS[1], 2)[::2]]
  assert sha256_of_arrays(copies) == sha256_of_arrays(iter(ARRAYS))


@pytest.mark.parametrize("array", [np.float32(3), np.zeros([0, 2]), np.zeros(3, "bfloat16")], ids=str)
def test_scalars_empty_arrays_and_bfloat16_have_digests(array):
  array = np.asarray(array)
  expected = hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
  assert sha256_of_arrays([array]) == expected


def test_checked_json_returns_the_dict_on_one_line():
  content = {"b": [1.5, None], "a": {"c": "ü"}}
  line = to_checked_json(content)
  assert "\n" not in line and from_checked_json(line) == content


@pytest.mark.parametrize(
  "damage, message",
  [
    (lambda line: line.replace("0.75", "0.95"), "its SHA-256 differs"),
    (lambda line: '{"accuracy": 0.75}', "its SHA-256 differs"),
    (lambda line: line[:20], None),
    (lambda line: "[1]", "expected a dict; found a list"),
    (lambda line: "[" * 100_000, "nested too deeply"),
    (lambda line: b"\xff" + line.encode(), None),
  ],
  ids=["changed", "no_digest", "truncated", "list", "nested", "not_utf8"],
)
def test_damaged_json_is_refused(damage, message):
  with pytest.raises(ValueError, match=message):
    from_checked_json(damage(to_checked_json({"accuracy": 0.75})))
