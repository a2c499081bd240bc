"""Layers that are computed as several, or as others, in an integer file: a rule for each class of Keras."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras as keras
from tf_keras.src.applications import convnext, inception_resnet_v2

from tfkd.keras3 import substitutes
from tfkd.keras3.activations import leaky_relu
from tfkd.ops import graph
from tfkd.ops.activations import activation_name
from tfkd.quantization.lowering import compound, primitives
from tfkd.quantization.lowering.parts import HARD_SIGMOIDS, Parts, activation_layer

layers = keras.layers
_FUSED_ACTIVATIONS = ("linear", "relu")  # As an argument of a layer: rounded once, after the activation.
_KERNEL = ("initializer", "regularizer", "constraint")


def lowered(layer: keras.layers.Layer) -> Parts | None:
  """Returns the parts that replace a layer, or None if an integer file computes the layer as it is."""
  rule = RULES.get(type(layer))
