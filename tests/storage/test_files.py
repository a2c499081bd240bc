"""Files appear under their final names complete or not at all."""

import errno
import json
import os

import pytest

from tfkd.storage.files import atomic_path, keras_home, path_to_write, write_bytes, write_json, write_text


def test_failed_write_leaves_nothing(tmp_path):
  with pytest.raises(RuntimeError), atomic_path(tmp_path / "file") as temporary:
    with open(temporary, "w") as file:
      file.write("half")
    raise RuntimeError
  assert not os.listdir(tmp_path)


def test_directory_is_replaced_as_a_whole(tmp_path):
  for content in ("a", "b"):
    with atomic_path(tmp_path / "model") as temporary:
      os.mkdir(temporary)
      with open(os.path.join(temporary, content), "w"):
        pass
  assert os.listdir(tmp_path / "model") == ["b"] and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "over quota"),
    RuntimeError("x.data; No space left on device"),
    OSError("Can't write data (file write failed: errno = 28)"),
  ],
)
def test_full_disk_is_reported_and_the_previous_file_is_kept(tmp_path, error):
  (tmp_path / "file").write_text("before")
  with (
    pytest.raises(OSError, match="no space left .*free some space and start again") as raised,
    atomic_path(tmp_path / "file"),
  ):
    raise error
  assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / "file")
  assert (tmp_path / "file").read_text() == "before" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("writes", [True, False])
def test_process_that_does_not_write_leaves_nothing(tmp_path, writes):
  with path_to_write(tmp_path / "file.txt", writes) as path, atomic_path(path) as temporary:
    assert temporary.endswith("file.txt")
    with open(temporary, "w") as file:
      file.write("x")
  assert os.listdir(tmp_path) == (["file.txt"] if writes else []) and os.path.exists(path) == writes


def test_content_is_written_as_given_into_missing_directories(tmp_path):
  write_bytes(tmp_path / "a" / "bytes", b"\x00\r\n")
  write_text(tmp_path / "a" / "text", "Größe\r\n1\n")
  write_json(tmp_path / "a" / "json", {"b": [1, None], "a": "x"})
  assert (tmp_path / "a" / "bytes").read_bytes() == b"\x00\r\n"
  assert (tmp_path / "a" / "text").read_bytes() == "Größe\r\n1\n".encode()
  text = (tmp_path / "a" / "json").read_text()
  assert json.loads(text) == {"a": "x", "b": [1, None]} and text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize("content", [object(), {"a": object()}])
def test_value_that_json_cannot_hold_leaves_the_file_unchanged(tmp_path, content):
  write_json(tmp_path / "file", 1)
  with pytest.raises(TypeError):
    write_json(tmp_path / "file", content)
  assert (tmp_path / "file").read_text() == "1" and os.listdir(tmp_path) == ["file"]


def test_keras_home_is_the_environment_variable_or_lies_in_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv("KERAS_HOME", str(tmp_path))
  assert keras_home() == str(tmp_path)
  monkeypatch.delenv("KERAS_HOME")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert keras_home() == str(tmp_path / ".keras")
