"""Text tables as people save them: any usual encoding, delimiter and line end, and every value as text.

Table programs write UTF-8 with a byte order mark, UTF-16 ("Unicode Text") or the code page of the country, commas,
semicolons or tabs, line ends of three systems, and a first line ``sep=;``. What is read here is the text that was
written: nothing that looks like a number, a date or a missing value becomes one.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from iv_pipeline.errors import DeliveryError, InputError, Notice

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from upath import UPath

DELIMITERS = ",;\t|"
_NO_DELIMITER = "\x1f"  # a table of one column needs none, and its values may hold commas
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CODE_PAGES = {"cp1251": "Windows, Cyrillic", "cp866": "DOS, Cyrillic"}
_EXPECTED = frozenset(
    [*map(chr, range(ord("А"), ord("я") + 1)), *"ЁёІіЇїЄєҐґЎў", *"№«»“”„‘’–—…©®™°±·§€\xa0\xad"]
)
"""Characters beyond ASCII that a text in a Cyrillic code page may hold; others are a sign of another encoding."""
_WORD = re.compile(r"[^\W\d_]+")
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip archive",
}
_HEAD = 1024
_SAVE = "save it as 'CSV UTF-8'"


@dataclass(frozen=True)
class TextTable:
    """The columns of a text table.

    Attributes
    ----------
    file
        Where it is.
    columns
        Values by the name in line 1, as they were written; columns without a name are left out.
    lines
        Line of the file in which each row begins.
    notices
        What was guessed.
    """

    file: UPath
    columns: dict[str, list[str]]
    lines: list[int]
    notices: tuple[Notice, ...] = ()

    def where(self, row: int) -> str:
        """File and line of a row."""
        return f"{self.file}, line {self.lines[row]}"


def read_text_table(
    file: UPath, known: Collection[str], *, error: type[InputError] = DeliveryError, skip_blank: bool = False
) -> TextTable:
    """Read a text table; rows without any value at its end are dropped.

    Parameters
    ----------
    file
        The table; line 1 has the names of its columns.
    known
        Names, in lower case, that help to find the delimiter.
    error
        Class of what is raised.
    skip_blank
        Whether rows without any value are dropped everywhere.

    Raises
    ------
    InputError
        If it is empty, no text, not in a known encoding, or has a row with another number of columns than line 1;
        of the class `error`, with file and line.
    FileNotFoundError
        If it is not there.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as wrong:
        raise error(
            f"cannot be read ({wrong.strerror or wrong})", where=file, fix="make it readable"
        ) from wrong
    try:
        text, notices = _decode(file, content, error)
        return _parse(file, text, known, notices, error, skip_blank)
    except csv.Error as wrong:
        raise error(f"is no CSV ({wrong})", where=file, fix=_SAVE) from None


def _decode(file: UPath, content: bytes, error: type[InputError]) -> tuple[str, tuple[Notice, ...]]:
    """The text of a file, and a notice if its encoding was guessed."""
    what = next((what for start, what in _OTHER_FILES.items() if content.startswith(start)), None)
    if what is not None:
        raise error(f"is {what}, no CSV", where=file, fix=f"open it in a table program and {_SAVE}")
    try:
        return content.decode(_unicode_of(content)), ()
    except UnicodeDecodeError:
        pass
    for page, whose in _CODE_PAGES.items():
        text = content.decode(page, errors="replace")
        if _is_cyrillic(text):
            notice = Notice(
                f"is not in UTF-8 and was read as {page} ({whose})",
                where=str(file),
                fix=f"{_SAVE} if its texts look wrong",
            )
            return text, (notice,)
    raise error(
        f"line {_undecodable_line(content)} is no text in UTF-8, UTF-16 or a Cyrillic code page",
        where=file,
        fix=_SAVE,
    )


def _unicode_of(content: bytes) -> str:
    """The Unicode encoding that a file may have; UTF-16 without a byte order mark is told by its zeros."""
    if content.startswith(_UTF16):
        return "utf-16"
    head = content[:_HEAD]
    zeros = {"utf-16-le": head[1::2].count(0), "utf-16-be": head[::2].count(0)}
    encoding = max(zeros, key=zeros.__getitem__)
    return encoding if len(content) % 2 == 0 and zeros[encoding] * 4 > len(head) else "utf-8-sig"


def _is_cyrillic(text: str) -> bool:
    """Whether a text read in a Cyrillic code page has what such texts have, and few words of two alphabets."""
    if any(character not in _EXPECTED for character in set(text) if not character.isascii()):
        return False
    words = [word for word in set(_WORD.findall(text)) if not word.isascii()]
    return 2 * sum(any(map(str.isascii, word)) for word in words) <= len(words)


def _undecodable_line(content: bytes) -> int:
    """First line that is not UTF-8, from 1."""
    if content.startswith(_UTF16):
        return 1
    lines = content.splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.decode(errors="replace").count("\ufffd"))


def _parse(
    file: UPath,
    text: str,
    known: Collection[str],
    notices: tuple[Notice, ...],
    error: type[InputError],
    skip_blank: bool,
) -> TextTable:
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise error(f"line {line} holds a zero byte and is no text", where=file, fix=_SAVE)
    if not text.strip():
        raise error("is empty", where=file, fix="copy it again from where it was made")
    source = io.StringIO(text, newline=None)  # CR, LF and CRLF end lines alike
    first, line = _next_line(source, 0)
    delimiter = None
    if first.lower().startswith("sep="):
        delimiter = first.rstrip("\n")[4:5] or None
        first, line = _next_line(source, line)
    delimiter = delimiter or _delimiter(first, known)
    reader = csv.reader(chain([first], source), delimiter=delimiter)
    names = [name.strip() for name in next(reader, [])]
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        raise error(
            f"has two columns {repeated[0]!r}", where=f"{file}, line {line}", fix="rename one of them"
        )
    rows, lines = _rows(file, reader, names, line - 1, error, skip_blank)
    if delimiter == _NO_DELIMITER:
        rows = _without_last_delimiter(rows)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names) if name}
    return TextTable(file, columns, lines, notices)


def _next_line(source: io.StringIO, line: int) -> tuple[str, int]:
    """The next line that is not blank, and its number; the text has one."""
    for text in source:
        line += 1
        if text.strip():
            return text, line
    return "", line


def _without_last_delimiter(rows: list[list[str]]) -> list[list[str]]:
    """Rows of one column without the delimiter that all of them end with."""
    filled = [row[0] for row in rows if row[0].strip()]
    mark = filled[0][-1] if filled else ""
    if mark not in (*DELIMITERS,) or not all(value.endswith(mark) for value in filled):
        return rows
    return [[row[0].removesuffix(mark)] for row in rows]


def _rows(
    file: UPath,
    reader: Iterable[list[str]],
    names: Sequence[str],
    before: int,
    error: type[InputError],
    skip_blank: bool,
) -> tuple[list[list[str]], list[int]]:
    """Rows as wide as `names`, and the line of each; `before` lines come before what `reader` reads."""
    rows: list[list[str]] = []
    lines: list[int] = []
    last = 0  # of the rows that are not blank
    width = len(names)
    at: int = reader.line_num  # type: ignore[attr-defined]
    for row in reader:
        line, at = before + at + 1, reader.line_num  # type: ignore[attr-defined]
        blank = not any(map(str.strip, row))
        if blank and skip_blank:
            continue
        if blank:
            row = [""] * width  # noqa: PLW2901
        elif len(row) != width and (len(row) < width or any(map(str.strip, row[width:]))):
            raise error(
                f"has {len(row)} columns, and the line with the names has {width}",
                where=f"{file}, line {line}",
                fix="put texts that hold the delimiter in quotes, and give every row all columns",
            )
        rows.append(row)
        lines.append(line)
        last = last if blank else len(rows)
    return rows[:last], lines[:last]


def _delimiter(header: str, known: Collection[str]) -> str:
    """What separates the names: what lets a known one be seen, else what gives the most; none if there is one."""
    marks = [mark for mark in DELIMITERS if mark in header]
    if not marks:
        return _NO_DELIMITER
    names = {mark: next(csv.reader([header], delimiter=mark)) for mark in marks}
    seen = [mark for mark in marks if any(name.strip().lower() in known for name in names[mark])]
    return max(seen or marks, key=lambda mark: len(names[mark]))
