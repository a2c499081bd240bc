"""Atomic writes, digests and fingerprints."""
