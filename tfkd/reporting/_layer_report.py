"""Tables and a picture of a comparison of a file with its Keras model."""

import os
from typing import Any

from tfkd.deploy import Comparison
from tfkd.reporting.figures import new_figure, save_figure
from tfkd.reporting.tables import markdown_table

_SHOWN_DB = 80.0  # Larger ratios are drawn at this one.


def layer_report(comparison: Comparison, picture: str | os.PathLike | None = None) -> str:
  """Describes where a file differs from its Keras model, layer by layer.

  Args:
    comparison: result of `tfkd.deploy.compare`.
    picture: `.png` file to draw the signal-to-noise ratios of the layers into; None draws nothing.

  Returns:
    Markdown: a table of layers, and one of the examples that differ most. Columns "float" are of the student without
    rounding, and missing for students that do not round.
  """
  if picture is not None:
    _draw(comparison, picture)
  header = ["layer", "operation", "type", "SNR to Keras, dB", "SNR to float, dB", "worst steps", "clipped"]
  rows = [
    [
      layer.name,
      layer.operation,
      layer.type,
      *_texts("{:.1f}", layer.snr, layer.float_snr, layer.worst_steps),
      *_texts("{:.2%}", layer.clipped),
    ]
    for layer in comparison.layers
  ]
  of_examples = ["example", "difference from Keras", "from float", "class of file", "of Keras", "of float"]
  examples = [
    [
      str(example.index),
      *_texts("{:.4g}", example.keras_difference, example.float_difference),
      *_texts("{}", *(example.classes or (None, None, None))),
    ]
    for example in comparison.examples
  ]
  if all(layer.float_snr is None for layer in comparison.layers):
    header, *rows = [row[:4] + row[5:] for row in (header, *rows)]
    of_examples, *examples = [row[:2] + row[3:5] for row in (of_examples, *examples)]
  return f"{markdown_table(header, rows)}\n{markdown_table(of_examples, examples)}"


def _draw(comparison: Comparison, path: str | os.PathLike) -> None:
  layers = comparison.layers
  figure, axes = new_figure(7, 1.2 + 0.22 * len(layers))
  places = range(len(layers))
  lines = {
    "Keras student": [layer.snr for layer in layers],
    "student without rounding": [layer.float_snr for layer in layers if layer.float_snr is not None],
  }
  for (name, values), marker in zip(lines.items(), "os", strict=True):
    if values:
      axes.plot([min(value, _SHOWN_DB) for value in values], places, marker=marker, label=name)
  axes.set_yticks(places, [layer.name for layer in layers])
  axes.invert_yaxis()
  axes.set_xlabel(f"signal-to-noise ratio of the file in dB; {_SHOWN_DB:.0f} and more are drawn at {_SHOWN_DB:.0f}")
  axes.grid(axis="x", alpha=0.3)
  axes.legend(title="against the")
  save_figure(figure, path)


def _texts(form: str, *values: Any) -> list[str]:
  return ["" if value is None else form.format(value) for value in values]
