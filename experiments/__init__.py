"""Scripts of homeworks and comparisons: `python -m experiments.<homework>.<question> --help`."""

import os

# Hides TensorFlow's messages at start-up; errors are still shown. Must be set before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
