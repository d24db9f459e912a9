"""Settings of Sphinx for the site; `make docs` prepares the sources (facecomp.site.build) and runs it."""

import sys
import tomllib
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _project["name"]
version = release = _project["version"]
author = _project["authors"][0]["name"]
copyright = f"2026 onwards, {author}. Apache-2.0"
language = "en"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["made/*", "files/**"]
suppress_warnings = ["toc.not_included"]

# notebooks: outputs as they are stored, nothing is executed
nb_execution_mode = "off"
nb_execution_cache_path = ""
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_url_schemes = ["http", "https", "mailto"]

# names of the package
add_module_names = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
viewcode_follow_imported_members = False

# the page
html_theme = "sphinx_book_theme"
html_title = "facecomp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_last_updated_fmt = None
html_theme_options = {
    "show_navbar_depth": 1,
    "max_navbar_depth": 2,
    "collapse_navbar": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_persistent": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
# part of the site: nothing is loaded from elsewhere
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}


def find_source(app, module: str):
    """Text and definitions of a module, read without importing it (for the links to the source)."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    return text, ModuleAnalyzer.for_string(text, module).find_tags()


def setup(app):
    app.connect("viewcode-find-source", find_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
