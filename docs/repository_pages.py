"""Adds pages made from the rest of the repository to the documentation: READMEs of experiments, and the API reference.

Markdown files link to each other as files of the repository, so that links also work on a forge or in an editor. The
site has the same files without the directory `docs`; their links are rewritten accordingly.
"""

import ast
import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("experiments/**/*.md", "tests/reliability/README.md", "CHANGELOG.md", "CONTRIBUTING.md")
LINKED_FILES = ("experiments/**/*.png", "experiments/**/results/*.json*")
_LINK = re.compile(r"(\]\()([^)#:\s]+)(?=[)#])")


def public_names(package: str) -> list[str]:
  """Lists the public functions and classes of `tfkd.<package>`, in the order of its `__init__.py`.

  Args:
    package: name of a directory of tfkd.

  Returns:
    Names imported as themselves (`from x import y as y`) or defined there.
  """
  names = []
  for node in ast.parse((ROOT / "tfkd" / package / "__init__.py").read_text()).body:
    if isinstance(node, ast.ImportFrom):
      names += [alias.name for alias in node.names if alias.asname == alias.name]
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      names.append(node.name)
  return [name for name in names if not name.startswith("_")]


def site_link(target: str, source: str, is_in_docs: bool) -> str:
  """Translates a link between files of the repository into one between pages of the site.

  Args:
    target: the link, relative to the file that contains it.
    source: path of the page in the site.
    is_in_docs: whether the file stands in the directory `docs`.

  Returns:
    The link relative to the page.
  """
  here = PurePosixPath("docs" if is_in_docs else ".") / PurePosixPath(source).parent
  path = PurePosixPath(os.path.normpath(here / target))
  if path.parts[0] == "docs":
    path = path.relative_to("docs")
  return os.path.relpath(path, PurePosixPath(source).parent)


def _reference_page(package):
  members = ", ".join(public_names(package))
  return f"# tfkd.{package}\n\n::: tfkd.{package}\n    options:\n      members: [{members}]\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages; called by MkDocs."""
  for pattern in PAGES + LINKED_FILES:
    for path in sorted(ROOT.glob(pattern)):
      files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
  for init in sorted(ROOT.glob("tfkd/*/__init__.py")):
    package = init.parent.name
    files.append(File.generated(config, f"reference/{package}.md", content=_reference_page(package)))
  return files


def on_page_markdown(markdown: str, page: Page, **_) -> str:
  """Rewrites the links of one page; called by MkDocs."""
  source = page.file.src_uri
  is_in_docs = page.file.generated_by is None
  return _LINK.sub(lambda found: found[1] + site_link(found[2], source, is_in_docs), markdown)
