"""Arithmetic, graph walks and timing that several packages share."""
