"""Writing files so that a final name never holds half a file."""

import contextlib
import os
import shutil
import tempfile


@contextlib.contextmanager
def atomic_path(path):
  """Yields a temporary path beside `path`; renames it to `path` if the block succeeds.

  Whatever the block writes there, a file or a directory, appears under `path` whole or not at all: a killed process
  leaves at most a hidden temporary entry. The temporary name keeps the suffix, because Keras picks the format by it.

  Args:
    path: the final name. Its directory is made if missing; an existing file or directory there is replaced.
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
      shutil.rmtree(path)
    os.replace(temporary, path)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
