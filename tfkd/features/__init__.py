"""Features of models: taps on named layers, connectors between shapes, and the record of one forward pass."""

from tfkd.features.outputs import ModelOutputs as ModelOutputs
