"""Shows the equations of docstrings as code blocks in the API reference."""

import re

import griffe

# A paragraph of lines that are all indented; arguments and sections follow a line that is not.
_EQUATION = re.compile(r"(?<=\n\n)(?: {2}.*\n?)+(?=\n|\Z)")


def indent_equations(docstring: str) -> str:
  """Indents paragraphs of two spaces, which the code uses for equations, by the four that Markdown expects."""
  return _EQUATION.sub(lambda found: re.sub(r"^", "  ", found[0].rstrip("\n"), flags=re.MULTILINE) + "\n", docstring)


class Equations(griffe.Extension):
  """Applies `indent_equations` to every docstring."""

  def on_object(self, *, obj: griffe.Object, **_) -> None:
    """Rewrites the docstring of one object; called by Griffe."""
    if obj.docstring:
      obj.docstring.value = indent_equations(obj.docstring.value)
