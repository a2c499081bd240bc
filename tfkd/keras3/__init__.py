"""Conversion of models between Keras 3 and `tf_keras`."""

from tfkd.keras3._from_keras3 import from_keras3 as from_keras3
from tfkd.keras3.library import is_keras3 as is_keras3
