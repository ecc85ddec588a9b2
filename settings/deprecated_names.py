"""Settings that were renamed: the old name works for one release, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

RENAMED: Mapping[str, str] = {}  # old name: new name; remove an entry one release later


def with_new_names(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with old names (also OLD_FILE) replaced by the new ones. Raises ValueError if both are set."""
    found = dict(environ)
    for old, new in RENAMED.items():
        for suffix in ("", "_FILE"):
            value = found.pop(f"{old}{suffix}", "")
            if not value:
                continue
            if environ.get(new) or environ.get(f"{new}_FILE"):
                raise ValueError(f"{old}{suffix} and {new} are both set; set only {new}, which is the new name")
            found[f"{new}{suffix}"] = value
            message = f"{old}{suffix} is now called {new}{suffix}; the old name will stop working in the next release"
            warnings.warn(message, FutureWarning, stacklevel=2)
    return found
