"""Writing files so that a final name never holds half a file, and reading them so that damage is found."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("No space left", "errno = 28", "Disk quota exceeded")  # Of libraries with errors of their own.
_LITTLE = 2**16  # Bytes: what is left of a disk that a library filled before it failed.


@contextlib.contextmanager
def atomic_path(path):
  """Yields a temporary path beside `path`; renames it to `path` if the block succeeds.

  Whatever the block writes there, a file or a directory, appears under `path` whole or not at all: a killed process
  leaves at most a hidden temporary entry. The temporary name keeps the suffix, because Keras picks the format by it.

  Args:
    path: the final name. Its directory is made if missing; an existing file or directory there is replaced.

  Raises:
    OSError: also where a library reports a full disk by an error of its own.
  """
  path = os.path.abspath(os.fspath(path))
  directory, name = os.path.split(path)
  os.makedirs(directory, exist_ok=True)
  # A directory of its own, since formats such as SavedModel or TensorFlow checkpoints write several files.
  scratch = tempfile.mkdtemp(prefix=f".{name}.", dir=directory)
  temporary = os.path.join(scratch, name)
  try:
    yield temporary
    if os.path.isdir(path) and not os.path.islink(path):
      os.replace(path, os.path.join(scratch, ".before"))
    os.replace(temporary, path)
  except Exception as error:
    if not _is_full(error, directory):
      raise
    words = f"no space left ({error}): make room and start again; what was written before is kept"
    raise OSError(errno.ENOSPC, words, path) from error
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def path_to_write(path, writes):
  """Yields `path`, or one of the same name in a temporary directory that is removed.

  For what all workers of a training have to do, since they read each other's variables, and one of them keeps.

  Args:
    path: the final name.
    writes: whether this process is the one that keeps it.
  """
  if writes:
    yield path
    return
  with tempfile.TemporaryDirectory() as scratch:
    yield os.path.join(scratch, os.path.basename(path))


def to_checked_json(content):
  """One line of JSON for a dict, with the SHA-256 of the rest of it, so that `from_checked_json` finds damage."""
  content = json.loads(json.dumps(content))
  return json.dumps({**content, "sha256": _digest(content)}, sort_keys=True)


def from_checked_json(text):
  """The dict that `to_checked_json` was given.

  Raises:
    ValueError: the text was changed since, has no digest, or is no JSON.
  """
  try:
    content = json.loads(text)
  except RecursionError as error:
    raise ValueError("it is nested too deeply") from error
  if not isinstance(content, dict):
    raise ValueError(f"expected a dict; found a {type(content).__name__}")
  if content.pop("sha256", None) != _digest(content):
    raise ValueError("its SHA-256 differs from what was written")
  return content


def _digest(content):
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_full(error, directory):
  if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS):
    return True
  return shutil.disk_usage(directory).free < _LITTLE
