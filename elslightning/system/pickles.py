"""Pickles of other programs, read as data: nothing they name is imported, nothing of theirs runs."""

import pickletools
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from elslightning.system.bounds import refuse_endless
from elslightning.system.errors import InputError
from elslightning.system.pickled import Call, Made, Name, Record, parts_of

# A batch of CIFAR-10 has some thirty thousand instructions: several for each image.
_MOST_INSTRUCTIONS = 200_000
# What a value may be when written out, beyond twice the pickle: what is shared is written each time.
_MOST_LENGTH = 1_000_000
# Numbers beyond those that are their own hash may be chosen to have the same one.
_HASHED = 2**61 - 1
_MOST_LONG_KEYS = 1000


def read_pickle(
    data: bytes,
    place: str,
    names: Collection[str] = (),
    calls: Mapping[str, Call] | None = None,
    persistent: Call | None = None,
) -> Any:
    """The content of a pickle: numbers, text, bytes, lists, tuples, dictionaries, and what is allowed.

    Sets become lists, and strings of Python 2 bytes. Time and memory are bounded by the length of the pickle, and so is
    what it holds, written out: a list may be in another many times, but not so often, nor so deep, that comparing or
    printing it would not end.

    Args:
        data: the pickle; what follows its end is not looked at.
        place: named in errors.
        names: what it may name; that becomes a `Name`, an object of it a `Record`.
        calls: what it may call, and what is called in its place.
        persistent: gives the object that a persistent id stands for; without it there may be none.

    Raises:
        InputError: for anything else, by its name, for damaged bytes, and for too much.

    >>> import pickle
    >>> read_pickle(pickle.dumps([3, 5, {"a": None}]), "the example")
    [3, 5, {'a': None}]
    >>> read_pickle(pickle.dumps(print), "the example")
    Traceback (most recent call last):
        ...
    elslightning.system.errors.InputError: the example names builtins.print, which such a file has no use for
    """
    machine = _Machine(data, place, names, calls or {}, persistent)
    try:
        value = machine.run()
        refuse_endless(value, place, 2 * len(data) + _MOST_LENGTH, parts_of)
        return value
    except InputError:  # a ValueError too
        raise
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise InputError(f"{place} is damaged, near byte {machine.position} of its pickle") from error


class _Machine:
    """The stack machine that pickles are programs of, with no more instructions than data needs."""

    def __init__(
        self, data: bytes, place: str, names: Collection[str], calls: Mapping[str, Call], persistent: Call | None
    ) -> None:
        self.data, self.position, self.place = data, 0, place
        self.names, self.calls, self.persistent = names, calls, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left, self.long_keys = _MOST_INSTRUCTIONS, _MOST_LONG_KEYS

    def run(self) -> Any:
        while (code := self.take(1)) != b".":
            self.spend(1)
            if code not in _INSTRUCTIONS:
                self.refuse(f"has the pickle instruction {_OPCODES.get(code, code)!s}, which is not read")
            _INSTRUCTIONS[code](self)
        return self.stack.pop()

    def refuse(self, reason: str) -> NoReturn:
        raise InputError(f"{self.place} {reason}")

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            self.refuse(f"takes more than {_MOST_INSTRUCTIONS} steps to read")

    # Reading.

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.position:
            raise IndexError
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def bytes(self, form: str) -> bytes:
        return self.take(self.number(form))

    def text(self, form: str) -> str:
        return self.bytes(form).decode()

    def line(self, encoding: str = "utf-8") -> str:
        return self.take(self.data.index(b"\n", self.position) + 1 - self.position)[:-1].decode(encoding)

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if not 0 <= count <= len(self.stack):
            raise IndexError
        start = len(self.stack) - count
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def above_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError
        return self.stack[-1]

    # Instructions.

    def protocol(self) -> None:
        version = self.number("<B")
        if version not in range(2, 6):
            self.refuse(f"is a pickle of protocol {version}: 2 to 5 are read")

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def integer(self) -> None:
        text = self.line()
        self.push(text == "01" if text in ("00", "01") else int(text))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | bytes | int):  # a tuple could be nested too deep to hash
                raise TypeError
            if isinstance(key, int) and abs(key) >= _HASHED:
                self.long_keys -= 1
                if self.long_keys < 0:
                    self.refuse(f"has more than {_MOST_LONG_KEYS} keys of very large numbers")
            target[key] = value

    def dictionary(self) -> None:
        pairs = self.above_mark()
        self.push({})
        self.set_items(pairs)

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError
        text = f"{module}.{name}"
        if "." in name or (text not in self.names and text not in self.calls):
            shown = text if text.isprintable() and len(text) <= 100 else repr(text[:100])
            self.refuse(f"names {shown}, which such a file has no use for")
        self.push(Name(text))

    def old_object(self) -> None:
        self.name(self.line(), self.line())
        self.refuse("has the pickle instruction INST, which is not read")

    def new_object(self) -> None:
        kind, arguments = self.pop(2)
        if not isinstance(kind, Name) or kind.text not in self.names or arguments != ():
            raise TypeError
        self.push(Record(kind.text))

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError
        if function.text not in self.calls:
            self.refuse(f"calls {function.text}, which such a file has no use for")
        self.push(self.calls[function.text](*arguments))

    def set_state(self) -> None:
        (state,) = self.pop(1)
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state
            return
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise TypeError
        self.spend(len(state))  # one that is shared is copied each time
        if not isinstance(self.stack[-1], dict):  # an OrderedDict has attributes, which are no data
            self.top(Record).state.update(state)

    def persistent_object(self) -> None:
        (identity,) = self.pop(1)
        if self.persistent is None:
            self.refuse("holds more than plain data")
        self.push(self.persistent(identity))

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]


_OPCODES = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": lambda m: m.number("<Q"),  # the length of a frame, a help for reading streams
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"G": lambda m: m.push(m.number(">d")),
    b"I": _Machine.integer,
    b"L": lambda m: m.push(int(m.line().removesuffix("L"))),
    b"X": lambda m: m.push(m.text("<I")),
    b"\x8c": lambda m: m.push(m.text("<B")),
    b"\x8d": lambda m: m.push(m.text("<Q")),
    b"V": lambda m: m.push(m.line("raw-unicode-escape")),
    b"U": lambda m: m.push(m.bytes("<B")),  # a string of Python 2
    b"T": lambda m: m.push(m.bytes("<i")),
    b"C": lambda m: m.push(m.bytes("<B")),
    b"B": lambda m: m.push(m.bytes("<I")),
    b"\x8e": lambda m: m.push(m.bytes("<Q")),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.push(tuple(m.pop(1))),
    b"\x86": lambda m: m.push(tuple(m.pop(2))),
    b"\x87": lambda m: m.push(tuple(m.pop(3))),
    b"t": lambda m: m.push(tuple(m.above_mark())),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.above_mark()),
    b"d": _Machine.dictionary,
    b"\x8f": lambda m: m.push([]),  # a set
    b"a": lambda m: m.extend(m.pop(1)),
    b"e": lambda m: m.extend(m.above_mark()),
    b"\x90": lambda m: m.extend(m.above_mark()),  # into a set
    b"}": lambda m: m.push({}),
    b"s": lambda m: m.set_items(m.pop(2)),
    b"u": lambda m: m.set_items(m.above_mark()),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"p": lambda m: m.memoize(int(m.line())),
    b"q": lambda m: m.memoize(m.number("<B")),
    b"r": lambda m: m.memoize(m.number("<I")),
    b"\x94": lambda m: m.memoize(len(m.memo)),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": lambda m: m.name(*m.pop(2)),
    b"i": _Machine.old_object,
    b"\x81": _Machine.new_object,
    b"R": _Machine.call,
    b"b": _Machine.set_state,
    b"Q": _Machine.persistent_object,
}
