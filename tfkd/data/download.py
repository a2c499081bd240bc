"""The directory of downloads, and a timeout for downloads, which Keras does not set."""

import contextlib
import os
import socket
from collections.abc import Iterator

from tfkd.storage.files import keras_home

_SECONDS = 60.0  # Without a byte.


def datasets_dir(name: str) -> str:
  """Returns the directory of a data set in Keras' cache."""
  return os.path.join(keras_home(), "datasets", name)


@contextlib.contextmanager
def connection_timeout() -> Iterator[None]:
  """Makes connections that are opened in the block fail when no byte arrives for a minute.

  Keras verifies the checksum of a file before it is used, and downloads a partial file of a killed process again.
  """
  before = socket.getdefaulttimeout()
  socket.setdefaulttimeout(_SECONDS)
  try:
    yield
  finally:
    socket.setdefaulttimeout(before)
