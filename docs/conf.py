"""How Sphinx builds this site: sphinx-build -W --keep-going -n docs build/docs"""

import sys
from pathlib import Path

import brainquant

sys.path.insert(0, str(Path(__file__).parent))
import tables  # noqa: E402

project = "brainquant"
author = "the brainquant authors"
version = release = brainquant.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = f"brainquant {version}"
html_show_sourcelink = False
html_show_copyright = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
copybutton_exclude = ".linenos, .gp"

add_module_names = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_ivar = True
# Docstrings name types in words ("list of str") and classes of torch and SpeechBrain. Only links
# to our own names are checked.
nitpick_ignore_regex = [("py:.*", r"(?!brainquant\.).*")]

# A docstring may name a class that two modules have; Sphinx then takes the first.
suppress_warnings = ["ref.python"]

linkcheck_timeout = 30
linkcheck_retries = 2
linkcheck_anchors = False


def setup(app):
    """Fills in the tables that are made from the code."""
    app.connect("source-read", tables.fill_in)
    app.connect("missing-reference", tables.type_variable)
