"""Where compiled code is kept: beside its source or in the home of the user, and else under the data root.

numba refuses to compile for a user who can write to neither, as in a container with a read-only image.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

COMPILED_PACKAGES = ("iv_pipeline",)
VARIABLE = "NUMBA_CACHE_DIR"


def choose_cache() -> None:
    """Set `NUMBA_CACHE_DIR` if numba's own choices cannot be written to; before numba is imported."""
    if os.environ.get(VARIABLE) or _beside_sources() or _can_write_below(_home_cache()):
        return
    root = os.environ.get("IV_DATA_ROOT") or "data"
    under_root = Path("data" if "://" in root else root).absolute() / ".numba"
    temporary = Path(tempfile.gettempdir()) / f"iv_pipeline-numba-{getattr(os, 'getuid', os.getpid)()}"
    os.environ[VARIABLE] = str(under_root if _can_write_below(under_root) else temporary)


def _beside_sources() -> bool:
    specs = [importlib.util.find_spec(name) for name in COMPILED_PACKAGES]
    folders = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
    return all(_is_writable(folder) for folder in folders)


def _home_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())


def _can_write_below(folder: Path) -> bool:
    """Whether a folder that may not be there yet could be made and written to."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and _is_writable(existing)


def _is_writable(folder: Path) -> bool:
    """Whether files can be made there; permissions alone would not tell of file systems such as /proc."""
    if not os.access(folder, os.W_OK):
        return False
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
