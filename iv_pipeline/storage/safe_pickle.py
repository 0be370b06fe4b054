"""Reads a pickle without running it.

A pickle is a program for a small stack machine, and unpickling runs it: whatever callable it names is called.
`read_safely` runs the same program with nothing in it that acts. Callables stay names, calls stay records
(`Call`), and bytes stay places in the file (`Span`), so that a matrix of gigabytes costs no more to read than
its header. What the records mean is for `iv_pipeline.storage.pickles` to say.
"""

from __future__ import annotations

import codecs
import re
import struct
import warnings
from typing import TYPE_CHECKING, Any

from iv_pipeline.storage.matrix import COPY_AGAIN, FormatError
from iv_pipeline.storage.pickle_machine import LINE_BYTES, ByteText, PickleMachine, Span, holds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy as np
    from numpy.typing import NDArray

_HEADS = re.compile(rb"\x80[\x02-\x05]|c[\w.]+\n[\w.]+\n|\([ldcIFSVUXKJMG(\])}]|[\]}](p|q|\.)")


def looks_like_pickle(data: NDArray[np.uint8]) -> bool:
    """Whether a file begins as pickles do."""
    return _HEADS.match(data[:200].tobytes()) is not None


def read_safely(data: NDArray[np.uint8], admitted: Collection[str]) -> Any:
    """What a pickle holds, as plain values and records.

    Parameters
    ----------
    data
        All bytes of the file, shape ``(n_bytes,)``; may be a memory map.
    admitted
        Callables that may be named, as ``package.name``.

    Returns
    -------
    Any
        Numbers, text, lists, tuples and dictionaries (keyed by text or numbers) as they are; `Name`, `Call` and
        `Span` for callables, calls and bytes. Floats that follow one another in a list or a tuple are one float64
        array, of at most 1,000. Paths of pathlib are text.

    Raises
    ------
    FormatError
        If the file ends early, goes on after its end, is damaged, or names a callable that is neither admitted
        nor makes one of the objects in `iv_pipeline.storage.foreign_objects`.
    """
    machine = PickleMachine(data.data, admitted)
    try:
        return machine.run(_OPERATIONS)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        if machine.foreign is not None:
            raise holds(machine.foreign) from error
        raise FormatError(f"is damaged near byte {machine.position:,}", COPY_AGAIN) from error


if TYPE_CHECKING:
    Operation = Callable[[PickleMachine], None]


def _number(layout: str, then: Callable[[PickleMachine, Any], None] = PickleMachine.push) -> Operation:
    """An operation that reads a number and does something with it, by default pushes it."""
    layout_ = struct.Struct(layout)

    def operation(machine: PickleMachine) -> None:
        then(machine, layout_.unpack(machine.take(layout_.size))[0])

    return operation


def _sized(layout: str, then: Callable[[PickleMachine, int], Any]) -> Operation:
    """An operation that reads a number of bytes and pushes what `then` makes of as many bytes."""
    return _number(layout, lambda machine, n: machine.push(then(machine, n)))


def _pushed(make: Callable[[], Any]) -> Operation:
    return lambda machine: machine.push(make())


def _text(machine: PickleMachine, n: int) -> str:
    return str(machine.take(n), "utf-8", "surrogatepass")


def _byte_text(machine: PickleMachine, n: int) -> ByteText | Span:
    """Text of Python 2; what is too long for text stays in the file."""
    return machine.skip(n) if n > LINE_BYTES else ByteText(machine.take(n).tobytes())


def _quoted(line: bytes) -> ByteText:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise ValueError("text is not quoted")
    with warnings.catch_warnings(action="ignore"):  # Python warns of escapes that it does not know
        return ByteText(codecs.escape_decode(line[1:-1])[0])


def _old_integer(line: bytes) -> int:
    return bool(int(line)) if line in {b"00", b"01"} else int(line.rstrip(b"L"))


def _on_line(make: Callable[[bytes], Any]) -> Operation:
    return lambda machine: machine.push(make(machine.line()))


def _items_to_dict(machine: PickleMachine) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    machine.fill(items[::2], items[1::2])


def _integer(machine: PickleMachine, n: int) -> int:
    return int.from_bytes(machine.take(n), "little", signed=True)


def _nothing(machine: PickleMachine, value: Any) -> None:
    """What it is about, the protocol's number and the size of a frame, shows in the file anyway."""


_OPERATIONS: dict[int, Operation] = {
    0x80: _number("<B", _nothing),  # PROTO
    0x95: _number("<Q", _nothing),  # FRAME
    ord("N"): _pushed(lambda: None),
    0x88: _pushed(lambda: True),
    0x89: _pushed(lambda: False),
    ord("K"): _number("<B"),
    ord("M"): _number("<H"),
    ord("J"): _number("<i"),
    ord("G"): PickleMachine.floats,
    0x8A: _sized("<B", _integer),  # LONG1
    ord("X"): _sized("<I", _text),
    0x8C: _sized("<B", _text),  # SHORT_BINUNICODE
    0x8D: _sized("<Q", _text),  # BINUNICODE8
    ord("C"): _sized("<B", PickleMachine.skip),
    ord("B"): _sized("<I", PickleMachine.skip),
    0x8E: _sized("<Q", PickleMachine.skip),  # BINBYTES8
    0x96: _sized("<Q", PickleMachine.skip),  # BYTEARRAY8
    ord("("): PickleMachine.mark,
    ord(")"): _pushed(tuple),
    0x85: lambda machine: machine.take_tuple(1),
    0x86: lambda machine: machine.take_tuple(2),
    0x87: lambda machine: machine.take_tuple(3),
    ord("t"): lambda machine: machine.push(tuple(machine.pop_to_mark())),
    ord("]"): _pushed(list),
    ord("a"): PickleMachine.append,
    ord("e"): PickleMachine.appends,
    ord("}"): _pushed(dict),
    ord("s"): PickleMachine.set_item,
    ord("u"): PickleMachine.set_items,
    ord("q"): _number("<B", PickleMachine.memoize),
    ord("r"): _number("<I", PickleMachine.memoize),
    0x94: PickleMachine.memoize_next,
    ord("h"): _number("<B", PickleMachine.recall),
    ord("j"): _number("<I", PickleMachine.recall),
    ord("c"): PickleMachine.global_name,
    0x93: PickleMachine.stack_name,
    ord("R"): PickleMachine.call,
    0x81: PickleMachine.call,  # NEWOBJ
    0x92: PickleMachine.call_with_keywords,  # NEWOBJ_EX
    ord("b"): PickleMachine.build,
    # protocols 0 and 1, and text of Python 2
    0x8B: _sized("<I", _integer),  # LONG4
    ord("U"): _sized("<B", _byte_text),
    ord("T"): _sized("<I", _byte_text),
    ord("S"): _on_line(_quoted),
    ord("V"): _on_line(lambda line: line.decode("raw-unicode-escape")),
    ord("I"): _on_line(_old_integer),
    ord("L"): _on_line(_old_integer),
    ord("F"): _on_line(float),
    ord("l"): lambda machine: machine.push(machine.pop_to_mark()),
    ord("d"): _items_to_dict,
    ord("p"): lambda machine: machine.memoize(int(machine.line())),
    ord("g"): lambda machine: machine.recall(int(machine.line())),
    ord("i"): PickleMachine.instance,
}
