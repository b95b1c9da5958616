"""Sphinx's configuration of the documentation site; "make docs" builds it."""

from snapmig import __version__

project = "snapmig"
copyright = "The snapmig authors"  # noqa: A001 - the name that Sphinx reads
author = "The snapmig authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "index"
html_theme = "furo"
html_title = f"snapmig {__version__}"
html_show_sphinx = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "none"
autodoc_class_signature = "separated"
highlight_language = "none"
# Examples of addresses that nobody serves, and pages that refuse programs.
linkcheck_ignore = [r"https?://(localhost|127\.|192\.0\.2\.|.*\.example)"]
