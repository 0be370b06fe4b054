"""Files that programs leave behind: they are nobody's data, in archives, deliveries and the inbox alike."""

from __future__ import annotations

import re

JUNK = (
    *(
        "__MACOSX",
        ".DS_Store",
        ".Spotlight-V100",
        ".fseventsd",
        ".Trashes",
        ".AppleDouble",
        ".TemporaryItems",
    ),
    *(
        "Thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "$RECYCLE.BIN",
        "System Volume Information",
    ),
    *("@eaDir", "#recycle", "@Recycle", ".@__thumb", ".directory", ".picasa.ini", ".ipynb_checkpoints"),
)
"""Names of files and folders, in any letter case: what macOS, Windows, Linux desktops, network disks and Jupyter
write into folders that somebody opens or shares."""
_PATTERNS = (
    r"\._[^/]*",  # AppleDouble: attributes of the file of the same name, where the disk has no place for them
    r"\.trash-\d+",  # wastebasket of a user of a Linux desktop
    r"~\$[^/]*",  # who has a file open in Microsoft Office
    r"\.~lock\.[^/]*#",  # and in LibreOffice
)
_JUNK = re.compile(
    rf"(?:^|/)(?:{'|'.join([*map(re.escape, JUNK), *_PATTERNS])})(?:/|$)", re.IGNORECASE | re.ASCII
)
UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".aria2")
"""Suffixes of files that are still being downloaded or copied, or were given up."""


def is_junk(path: str) -> bool:
    """Whether a file is such a leftover, or lies in a folder that is one.

    Parameters
    ----------
    path
        Relative, with ``/`` between its parts.
    """
    return _JUNK.search(path) is not None


def is_unfinished(path: str) -> bool:
    """Whether a file is named as downloads and copies are until they are whole."""
    return path.lower().endswith(UNFINISHED)
