"""What every download needs that Keras' does not have: an end."""

import contextlib
import socket

_SECONDS = 60.0  # Without a byte.


@contextlib.contextmanager
def time_limit_of_connections():
  """Connections that are opened meanwhile end with an error when nothing comes for a minute, not never.

  Keras checks the sum of a file before it is used, and fetches one anew that a killed process left in part.
  """
  before = socket.getdefaulttimeout()
  socket.setdefaulttimeout(_SECONDS)
  try:
    yield
  finally:
    socket.setdefaulttimeout(before)
