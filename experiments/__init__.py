"""Homeworks as scripts: `python -m experiments.<homework>.<question> --help`."""

import os

# TensorFlow's start-up notes about CPU instructions and missing GPUs; errors stay. Must be set before its import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
