"""Installs tfkd: `pip install -e .[test]`, with `[gpu]` for NVIDIA GPUs and `[vit]` for KerasHub's teachers."""

import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
# Read as text: importing the package would import TensorFlow.
version = re.search(r'^__version__ = "(.+)"$', (root / "tfkd/__init__.py").read_text(), re.MULTILINE)[1]

setup(
  name="tfkd",
  version=version,
  description="Knowledge distillation for tf_keras: small, quantized students from large teachers",
  long_description=(root / "README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.10,<3.14",
  packages=find_packages(include=["tfkd", "tfkd.*"]),
  install_requires=[
    "tensorflow~=2.21.0",
    "tf-keras~=2.21.0",
    "tensorflow-model-optimization~=0.8.1",
    "tensorboard~=2.21.0",
    "setuptools<81",  # tfmot imports distutils, and TensorBoard pkg_resources, which newer setuptools lack.
    "numpy",
    "absl-py",
    "scipy",
    "pillow",
    "matplotlib",
    "ai-edge-litert>=2.1",
    "tqdm",
    "safetensors",
    "filelock",
  ],
  extras_require={
    # Another ruff formats and finds otherwise.
    "test": ["pytest~=9.2", "pytest-xdist~=3.8", "hypothesis~=6.0", "ruff~=0.17.6"],
    "vit": ["keras-hub"],
    "gpu": ["tensorflow[and-cuda]~=2.21.0"],
  },
)
