"""Atomic writes (`files`), SHA-256 digests (`digests`) and fingerprints of examples (`fingerprints`)."""
