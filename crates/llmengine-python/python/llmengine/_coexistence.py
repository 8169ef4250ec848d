"""Two packages are imported as `llmengine`: this one, and the one that is published as `scale-llm-engine`."""

import warnings
from importlib import metadata
from typing import Optional

OTHER = "scale-llm-engine"
OURS = "llmengine"

CHOICE = f"""\
Both put their files into the same folder, so keep one:
  this one:     pip uninstall -y {OTHER}; then install the wheel of {OURS} again, with --force-reinstall
  the other:    pip uninstall -y {OURS}; then pip install --force-reinstall --pre {OTHER}"""


def other_version() -> Optional[str]:
    """The version of the other package, if it is installed too."""
    try:
        return metadata.version(OTHER)
    except metadata.PackageNotFoundError:
        return None


def warn() -> None:
    """Says so, if both are installed."""
    version = other_version()
    if version is not None:
        warnings.warn(
            f"{OTHER} {version} is installed too, and is imported as llmengine as well; this is {OURS}.\n{CHOICE}",
            stacklevel=3,
        )
