"""Files that file managers leave behind: they are nobody's data, in archives, deliveries and the inbox alike."""

from __future__ import annotations

JUNK = frozenset({"__macosx", ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".spotlight-v100"})
"""Names of files and folders, in lower case: what macOS and Windows write into folders that somebody opens."""
_APPLE_DOUBLE = "._"  # attributes of the file of the same name, where the disk has no place for them


def is_junk(path: str) -> bool:
    """Whether a file is such a leftover, or lies in a folder that is one.

    Parameters
    ----------
    path
        Relative, with ``/`` between its parts.
    """
    return any(part.lower() in JUNK or part.startswith(_APPLE_DOUBLE) for part in path.split("/"))
