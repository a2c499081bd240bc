"""Reads the files of a directory or of a tar archive."""

import os
import tarfile
from collections.abc import Iterator

_LARGEST_EXPANSION = 1000


def read_files(path: str | os.PathLike, what: str) -> Iterator[tuple[str, bytes]]:
  """Reads all files of a directory or of an archive, in no reliable order.

  Args:
    path: directory, or tar archive (`.tar`, `.tar.gz`, `.tar.xz`).
    what: kind of files that are expected, for messages, such as "images".

  Yields:
    Path relative to the directory or archive, and content.

  Raises:
    ValueError: the archive is damaged, is none, or would be dangerous to unpack.
    OSError: a file cannot be read.
  """
  return _directory_files(path) if os.path.isdir(path) else _archive_files(path, what)


def _directory_files(directory: str | os.PathLike) -> Iterator[tuple[str, bytes]]:
  for parent, _, names in os.walk(directory):
    for name in names:
      path = os.path.join(parent, name)
      with open(path, "rb") as file:
        yield os.path.relpath(path, directory), file.read()


def _archive_files(path: str | os.PathLike, what: str) -> Iterator[tuple[str, bytes]]:
  """Reads members one by one without unpacking, so that paths inside an archive never reach the file system.

  An archive that would be dangerous to unpack is refused all the same: it is not an archive of a data set.
  """
  limit = os.path.getsize(path) * _LARGEST_EXPANSION
  try:
    # Streaming mode, "r|*", would mistake the end of a truncated file for the end of the archive.
    with tarfile.open(path) as archive:
      for member in archive:
        if member.islnk() or member.issym() or os.path.isabs(member.name) or ".." in member.name.split("/"):
          raise ValueError(f"member {member.name!r} is a link, or outside of the archive")
        if member.offset_data + member.size > limit:
          raise ValueError(f"member {member.name!r} would expand it to more than {_LARGEST_EXPANSION} times its size")
        if member.isfile():
          yield member.name, archive.extractfile(member).read()
  except (tarfile.TarError, EOFError, OSError, ValueError) as error:
    raise ValueError(f"{path} is truncated, or not a tar archive of {what}: {error}") from error
