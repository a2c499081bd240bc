"""Atomic writes: a file appears under its final name only when it is complete."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL_TEXTS = ("No space left", "errno = 28", "Disk quota exceeded")  # Libraries raise their own error types.
_NEARLY_FULL = 2**16  # Bytes. A library that fills a disk and then fails may leave this little.


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[str]:
  """Yields a temporary path next to `path` and renames it to `path` if the block succeeds.

  The block may write a file or a directory. It appears under `path` complete or not at all: a killed process leaves at
  most a hidden temporary entry. The temporary name keeps the suffix, because Keras derives the format from it.

  Args:
    path: the final name. A missing parent directory is created; an existing file or directory is replaced.

  Yields:
    The temporary path, which does not exist yet.

  Raises:
    OSError: with errno ENOSPC if the disk is full, also where a library raised an error of its own for it.
  """
  path = os.path.abspath(os.fspath(path))
  directory, name = os.path.split(path)
  os.makedirs(directory, exist_ok=True)
  # A scratch directory, because formats such as SavedModel and TensorFlow checkpoints consist of several files.
  scratch = tempfile.mkdtemp(prefix=f".{name}.", dir=directory)
  temporary = os.path.join(scratch, name)
  try:
    yield temporary
    if os.path.isdir(path) and not os.path.islink(path):
      os.replace(path, os.path.join(scratch, ".before"))
    os.replace(temporary, path)
  except Exception as error:
    if not _is_disk_full(error, directory):
      raise
    message = f"no space left ({error}): free some space and start again; files written earlier are unchanged"
    raise OSError(errno.ENOSPC, message, path) from error
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def path_to_write(path: str | os.PathLike, writes: bool) -> Iterator[str | os.PathLike]:
  """Yields `path`, or a path of the same name in a temporary directory that is removed afterwards.

  Saving a model is a collective operation: all workers read each other's variables, but only one keeps the file.

  Args:
    path: the final name.
    writes: whether this process keeps the file.

  Yields:
    The path that this process writes to.
  """
  if writes:
    yield path
    return
  with tempfile.TemporaryDirectory() as scratch:
    yield os.path.join(scratch, os.path.basename(path))


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
  """Writes a binary file atomically; see `atomic_path`."""
  with atomic_path(path) as temporary, open(temporary, "wb") as file:
    file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file as UTF-8, atomically; line ends are written as given."""
  write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, content: object) -> None:
  """Writes a JSON file with sorted keys, atomically."""
  write_text(path, json.dumps(content, indent=2, sort_keys=True))


def keras_home() -> str:
  """Returns the directory in which Keras keeps its data: `$KERAS_HOME`, or `~/.keras`."""
  return os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))


def _is_disk_full(error, directory):
  if getattr(error, "errno", None) in _DISK_FULL or any(text in str(error) for text in _DISK_FULL_TEXTS):
    return True
  return shutil.disk_usage(directory).free < _NEARLY_FULL
