"""Objectives: loss function and weight as Keras-serialisable layers, to be listed in a `Distiller`."""

from tfkd.objectives.base import Objective as Objective
from tfkd.objectives.soft_targets import SoftTargets as SoftTargets
