"""How Sphinx builds the site: ``sphinx-build -W --keep-going docs build/site``."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import click
from sphinx.application import Sphinx
from sphinx.util import rst

import ozgraph

project = "ozgraph"
release = ozgraph.__version__
html_title = "ozgraph"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]

# Links to headings are the forge's: `design.md#1-dependencies-are-shape-types` holds in both places.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# Sources of results are named by path, and a page of the site may be about the folder beside it.
exclude_patterns = ["_build"]

python_maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path: list[str] = []
html_copy_source = False
html_show_copyright = False
# Prompts of console blocks are not part of what people paste.
copybutton_prompt_text = "$ "

# Files at the root that have a page here: links to them hold on the forge as they are written, and here as rewritten.
SHOWN = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}


def rewrite_source(app: Sphinx, docname: str, content: list[str]) -> None:
    """Point links at pages of the site."""
    for name, page in SHOWN.items():
        content[0] = content[0].replace(f"](../{name})", f"]({page})")


def rewrite_included(app: Sphinx, relative_path: Path, parent_docname: str, content: list[str]) -> None:
    """Point links of the files at the root at pages of the site; pages are named from ``docs``."""
    for name, page in SHOWN.items():
        content[0] = content[0].replace(f"]({name})", f"](docs/{page})")


def plain_help(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Help texts are prose for a terminal, in which no character is markup."""
    lines[:] = [
        line if re.match(r"\s*(\.\. |:|\| )", line) else re.sub(r"\S.*", lambda found: rst.escape(found[0]), line)
        for line in lines
    ]


def with_examples(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """A description with the examples that ``--help`` shows below it."""
    plain_help(app, context, lines)
    formatter = click.HelpFormatter(width=110)
    context.command.format_help_text(context, formatter)
    _, heading, examples = formatter.getvalue().partition("Examples:\n")
    if heading:
        block = textwrap.dedent(examples).strip().splitlines()
        lines += [".. code-block:: text", "", *(f"   {line}" for line in block), ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", rewrite_source)
    app.connect("include-read", rewrite_included)
    app.connect("sphinx-click-process-description", with_examples)
    for part in ("options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", plain_help)
