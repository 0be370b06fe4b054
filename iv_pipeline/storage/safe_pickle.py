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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from iv_pipeline.storage.foreign_objects import ForeignObject, foreign_object
from iv_pipeline.storage.matrix import COPY_AGAIN, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

_HEADS = re.compile(rb"\x80[\x02-\x05]|c[\w.]+\n[\w.]+\n|\([ldcIFSVUXKJMG(\])}]|[\]}](p|q|\.)")
_FLOAT = ord("G")
_FLOATS = np.dtype([("opcode", "u1"), ("value", ">f8")])
_LINE_BYTES = 4096
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_PATHS = frozenset(
    f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
)
_FLOATS_AT_ONCE = 1000  # the most that a pickler puts between a mark and the end of a list


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` to before `stop` of the file, not read yet."""

    start: int
    stop: int


class ByteText(str):
    """Text that Python 2 wrote, which may be bytes: `raw` has them."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        """Text in UTF-8, or else in Latin-1."""
        try:
            text = super().__new__(cls, raw.decode())
        except UnicodeDecodeError:
            text = super().__new__(cls, raw.decode("latin1"))
        text.raw = raw
        return text


@dataclass(frozen=True, slots=True)
class Name:
    """A callable that the pickle names: its package and its own name, whatever modules lie between."""

    name: str
    foreign: ForeignObject | None = None


@dataclass(slots=True)
class Call:
    """A call that was not made: the callable's name, its arguments, and the state its result was given."""

    name: str
    args: Any
    state: Any = None
    foreign: ForeignObject | None = None


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
    machine = _Machine(data.data, admitted)
    try:
        return machine.run()
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        if machine.foreign is not None:
            raise holds(machine.foreign) from error
        raise FormatError(f"is damaged near byte {machine.position:,}", COPY_AGAIN) from error


def holds(kind: ForeignObject) -> FormatError:
    """The error of a file that holds an object of another library."""
    return FormatError(f"holds {kind.what}, not an array", kind.fix)


class _Machine:
    """The stack machine: `position` in the file, a stack that marks divide into frames, and a memo."""

    def __init__(self, data: memoryview, admitted: Collection[str]) -> None:
        self.position = 0
        self._data = data
        self._admitted = admitted
        self._stack: list[Any] = []
        self._frames: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.foreign: ForeignObject | None = None  # the first that is named

    def run(self) -> Any:
        """Run to the end of the program, which must be the end of the file; returns its one value."""
        while (opcode := self._opcode()) != _STOP:
            operation = _OPERATIONS.get(opcode)
            if operation is None:
                raise FormatError(f"uses the pickle instruction {bytes([opcode])!r}, which no array needs")
            operation(self)
        if self.position != len(self._data):
            raise FormatError("goes on after its first pickle ends, and would be read in part")
        if self._frames:
            raise ValueError("a mark is left open")
        (value,) = self._stack
        return value

    def _opcode(self) -> int:
        if self.position == len(self._data):
            raise FormatError("ends in the middle of its data", COPY_AGAIN)
        self.position += 1
        return self._data[self.position - 1]

    def take(self, n: int) -> memoryview:
        """The next `n` bytes."""
        if n < 0:
            raise ValueError("a length is negative")
        start, self.position = self.position, self.position + n
        if self.position > len(self._data):
            raise FormatError("ends in the middle of its data", COPY_AGAIN)
        return self._data[start : self.position]

    def skip(self, n: int) -> Span:
        """Where the next `n` bytes lie."""
        self.take(n)
        return Span(self.position - n, self.position)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def mark(self) -> None:
        self._frames.append(self._stack)
        self._stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._frames.pop()
        return items

    def floats(self) -> None:
        """Push a float, or a run of floats that a list or a tuple takes as one array.

        As Python objects a list of vectors would take four times the memory and a hundred times as long.
        """
        start = self.position - 1
        room = (len(self._data) - start) // _FLOATS.itemsize
        if room == 0:
            raise FormatError("ends in the middle of its data", COPY_AGAIN)
        records = np.frombuffer(self._data, _FLOATS, count=min(room, _FLOATS_AT_ONCE), offset=start)
        others = np.flatnonzero(records["opcode"] != _FLOAT)
        n = int(others[0]) if len(others) else len(records)
        values = records["value"][:n].astype(np.float64)
        self.position = start + n * _FLOATS.itemsize
        closes = self._data[self.position : self.position + 1].tobytes() in (b"e", b"t")
        if closes or n == _FLOATS_AT_ONCE:
            self.push(values)
        else:
            self._stack.extend(values.tolist())

    def append(self) -> None:
        item = self.pop()
        self._list().append(item)

    def appends(self) -> None:
        items = self.pop_to_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        target = self._stack[-1]
        if isinstance(target, Call) and target.foreign is not None:
            return []  # what it holds is not asked for
        if not isinstance(target, list):
            raise TypeError("only a list is appended to")
        return target

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.fill([key], [value])

    def set_items(self) -> None:
        items = self.pop_to_mark()
        self.fill(items[::2], items[1::2])

    def fill(self, keys: list[Any], values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Call) and target.foreign is not None:
            return
        keys = [self._key(key) for key in keys]
        if not isinstance(target, dict):
            raise TypeError("only a dictionary has items")
        target.update(zip(keys, values, strict=True))

    def _key(self, key: Any) -> str | int:
        """A key of a dictionary; text of NumPy is text, and floats that were gathered are none."""
        match key:
            case str():
                return str(key)
            case int():
                return key
            case Call("numpy.scalar", (Call("numpy.dtype", (str(code), *_)), content)) if code[:1] == "U":
                return self._text_of(content).rstrip("\0")
        raise FormatError("holds a dictionary whose keys are no text", "key its vectors by image path")

    def _text_of(self, content: Any) -> str:
        """The text of a scalar of NumPy, UTF-32 in bytes, which protocol 2 writes as Latin-1."""
        match content:
            case Span(start, stop):
                return self._data[start:stop].tobytes().decode("utf-32-le")
            case Call("_codecs.encode", (str(text), "latin1")):
                return text.encode("latin1").decode("utf-32-le")
        raise TypeError("a text of NumPy has no bytes")

    def take_tuple(self, n: int) -> None:
        if len(self._stack) < n:
            raise IndexError("the stack is too short")
        items = tuple(self._stack[-n:])
        del self._stack[-n:]
        self.push(items)

    def memoize(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def memoize_next(self) -> None:
        self.memoize(len(self._memo))

    def recall(self, key: int) -> None:
        self.push(self._memo[key])

    def line(self) -> bytes:
        """The bytes up to the next line feed."""
        stop = self.position
        while stop < len(self._data):
            chunk = self._data[stop : stop + _LINE_BYTES].tobytes()
            if b"\n" in chunk:
                return self.take(stop + chunk.index(b"\n") + 1 - self.position).tobytes()[:-1]
            stop += len(chunk)
        raise FormatError("ends in the middle of its data", COPY_AGAIN)

    def name(self, module: str, name: str) -> None:
        """Push the name of a callable; only an admitted or a harmless one may be mentioned at all."""
        package = _PYTHON_2.get(module.partition(".")[0], module.partition(".")[0])
        short = f"{package}.{name}"
        foreign = None if short in self._admitted else foreign_object(f"{module}.{name}")
        if short not in self._admitted and foreign is None:
            raise FormatError(
                f"wants to run {module}.{name}, which no array needs",
                "nothing was run: do not unpickle it, and ask for a plain NumPy array",
            )
        self.foreign = self.foreign or foreign
        self.push(Name(short, foreign))

    def global_name(self) -> None:
        module = self.line().decode()
        self.name(module, self.line().decode())

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name is text")
        self.name(module, name)

    def call(self) -> None:
        args, callee = self.pop(), self.pop()
        if not isinstance(callee, Name) or not isinstance(args, tuple):
            raise TypeError("only a name is called")
        self.push(self._called(callee, args))

    def _called(self, callee: Name, args: tuple[Any, ...]) -> Any:
        if callee.name in {"collections.OrderedDict", "collections.defaultdict"} and len(args) <= 1:
            return {}
        if callee.name in _PATHS and all(isinstance(part, str) for part in args):
            return "/".join(args).replace("//", "/")
        if callee.name == "copyreg._reconstructor" and args and isinstance(args[0], Name):
            callee = args[0]
        if callee.name == "pandas.__pyx_unpickle_NDArrayBacked" and args and isinstance(args[0], Name):
            return Call(callee.name, args, foreign=args[0].foreign)
        return Call(callee.name, args, foreign=callee.foreign)

    def call_with_keywords(self) -> None:
        keywords = self.pop()
        self.call()
        if keywords and not (isinstance(self._stack[-1], Call) and self._stack[-1].foreign):
            raise TypeError("no array needs keywords")

    def instance(self) -> None:
        """Push an object of the old kind, whose class is on two lines and whose arguments are above the mark."""
        args = tuple(self.pop_to_mark())
        self.global_name()
        self.push(args)
        self.call()

    def build(self) -> None:
        state, built = self.pop(), self._stack[-1]
        if isinstance(built, Call) and built.foreign is not None:
            return
        if not isinstance(built, Call) or built.state is not None:
            raise TypeError("only the result of a call is given a state, once")
        built.state = state
        if built.name == "joblib.NumpyArrayWrapper":
            self._read_joblib(built)

    def _read_joblib(self, wrapper: Call) -> None:
        """Make a record of joblib that of an array, whose bytes joblib writes into the pickle behind it."""
        state = wrapper.state
        match state:
            case {"subclass": Name() as subclass, "shape": tuple() as shape, "order": order, "dtype": dtype}:
                pass
            case _:
                raise TypeError("an array of joblib is not described")
        match dtype:
            case Call("numpy.dtype", (str(code), *_)) if code[1:].isdigit() and code[0] in "fiu":
                n_bytes = int(code[1:])
            case _:
                raise FormatError(
                    "holds objects that joblib wrote", "load it with joblib.load, and save numbers"
                )
        if state.get("numpy_array_alignment_bytes") is not None:
            self.take(self.take(1)[0])
        for length in shape:
            n_bytes *= length
        content = self.skip(n_bytes)
        wrapper.name, wrapper.args = "numpy._reconstruct", (subclass,)
        wrapper.state = (1, shape, dtype, order == "F", content)


if TYPE_CHECKING:
    Operation = Callable[[_Machine], None]


def _number(layout: str, then: Callable[[_Machine, Any], None] = _Machine.push) -> Operation:
    """An operation that reads a number and does something with it, by default pushes it."""
    layout_ = struct.Struct(layout)

    def operation(machine: _Machine) -> None:
        then(machine, layout_.unpack(machine.take(layout_.size))[0])

    return operation


def _sized(layout: str, then: Callable[[_Machine, int], Any]) -> Operation:
    """An operation that reads a number of bytes and pushes what `then` makes of as many bytes."""
    return _number(layout, lambda machine, n: machine.push(then(machine, n)))


def _pushed(make: Callable[[], Any]) -> Operation:
    return lambda machine: machine.push(make())


def _text(machine: _Machine, n: int) -> str:
    return str(machine.take(n), "utf-8", "surrogatepass")


def _byte_text(machine: _Machine, n: int) -> ByteText | Span:
    """Text of Python 2; what is too long for text stays in the file."""
    return machine.skip(n) if n > _LINE_BYTES else ByteText(machine.take(n).tobytes())


def _quoted(line: bytes) -> ByteText:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise ValueError("text is not quoted")
    with warnings.catch_warnings(action="ignore"):  # Python warns of escapes that it does not know
        return ByteText(codecs.escape_decode(line[1:-1])[0])


def _old_integer(line: bytes) -> int:
    return bool(int(line)) if line in {b"00", b"01"} else int(line.rstrip(b"L"))


def _on_line(make: Callable[[bytes], Any]) -> Operation:
    return lambda machine: machine.push(make(machine.line()))


def _items_to_dict(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    machine.fill(items[::2], items[1::2])


def _integer(machine: _Machine, n: int) -> int:
    return int.from_bytes(machine.take(n), "little", signed=True)


def _nothing(machine: _Machine, value: Any) -> None:
    """What it is about, the protocol's number and the size of a frame, shows in the file anyway."""


_STOP = ord(".")
_OPERATIONS: dict[int, Operation] = {
    0x80: _number("<B", _nothing),  # PROTO
    0x95: _number("<Q", _nothing),  # FRAME
    ord("N"): _pushed(lambda: None),
    0x88: _pushed(lambda: True),
    0x89: _pushed(lambda: False),
    ord("K"): _number("<B"),
    ord("M"): _number("<H"),
    ord("J"): _number("<i"),
    ord("G"): _Machine.floats,
    0x8A: _sized("<B", _integer),  # LONG1
    ord("X"): _sized("<I", _text),
    0x8C: _sized("<B", _text),  # SHORT_BINUNICODE
    0x8D: _sized("<Q", _text),  # BINUNICODE8
    ord("C"): _sized("<B", _Machine.skip),
    ord("B"): _sized("<I", _Machine.skip),
    0x8E: _sized("<Q", _Machine.skip),  # BINBYTES8
    0x96: _sized("<Q", _Machine.skip),  # BYTEARRAY8
    ord("("): _Machine.mark,
    ord(")"): _pushed(tuple),
    0x85: lambda machine: machine.take_tuple(1),
    0x86: lambda machine: machine.take_tuple(2),
    0x87: lambda machine: machine.take_tuple(3),
    ord("t"): lambda machine: machine.push(tuple(machine.pop_to_mark())),
    ord("]"): _pushed(list),
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("}"): _pushed(dict),
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("q"): _number("<B", _Machine.memoize),
    ord("r"): _number("<I", _Machine.memoize),
    0x94: _Machine.memoize_next,
    ord("h"): _number("<B", _Machine.recall),
    ord("j"): _number("<I", _Machine.recall),
    ord("c"): _Machine.global_name,
    0x93: _Machine.stack_name,
    ord("R"): _Machine.call,
    0x81: _Machine.call,  # NEWOBJ
    0x92: _Machine.call_with_keywords,  # NEWOBJ_EX
    ord("b"): _Machine.build,
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
    ord("i"): _Machine.instance,
}
