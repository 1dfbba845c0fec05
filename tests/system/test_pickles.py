"""Pickles as data: plain values come back, everything else is refused by its name and does not run."""

import collections
import io
import os
import pickle
import random
import shutil
import struct

import pytest

from elslightning.system.errors import InputError
from elslightning.system.pickled import Name, Record
from elslightning.system.pickles import read_pickle

pytestmark = pytest.mark.reliability

SHARED = [1, 2]
PLAIN = [
    *(None, True, False, 0, 255, 256, 65536, -1, 2**31 - 1, -(2**31), 2**40, -(2**70), 1.5, float("inf")),
    *("", "text", "größer", "long " * 100, (), (1,), (1, 2), (1, 2, 3), tuple(range(10)), [], [1], list(range(2000))),
    *({}, {"a": 1}, {1: [2]}, {str(n): n for n in range(2000)}, [SHARED, SHARED, (SHARED, {"again": SHARED})]),
]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:30])
def test_plain_values_come_back(value, protocol):
    found = read_pickle(pickle.dumps(value, protocol), "the file")
    assert found == value
    assert type(found) is type(value)


def test_what_is_shared_stays_shared():
    first, second = read_pickle(pickle.dumps([SHARED, SHARED]), "the file")
    assert first is second


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_set_becomes_a_list(protocol):
    calls = {f"{module}.set": lambda values: values for module in ("__builtin__", "builtins")}
    assert read_pickle(pickle.dumps({"a", "b"}, protocol), "the file", calls=calls) in (["a", "b"], ["b", "a"])


class Thing:
    """An object with attributes, and one that it names."""

    def __init__(self):
        self.size, self.maker = 3, Thing


def test_an_object_of_a_class_that_may_be_named_becomes_a_record():
    name = f"{Thing.__module__}.Thing"
    for protocol in range(2, 6):
        found = read_pickle(pickle.dumps(Thing(), protocol), "the file", [name])
        assert isinstance(found, Record)
        assert (found.kind, found.state) == (name, {"size": 3, "maker": Name(name)})


def test_a_call_is_one_of_ours():
    data = pickle.dumps(collections.OrderedDict(a=1))
    found = read_pickle(data, "the file", calls={"collections.OrderedDict": lambda *arguments: {"args": arguments}})
    assert found == {"args": (), "a": 1}


def test_persistent_ids_are_looked_up():
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("big", 5) if type(value) is Payload else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump([4, Payload(print)])
    assert read_pickle(buffer.getvalue(), "the file", persistent=lambda identity: identity[1] * 100) == [4, 500]
    refused(buffer.getvalue(), "holds more than plain data")


# What is refused.


def refused(data: bytes, *parts: str, **allowed: object) -> str:
    """The line that a pickle is refused with, which names the file and contains the parts."""
    with pytest.raises(InputError) as caught:
        read_pickle(data, "the file", **allowed)
    message = str(caught.value)
    assert message.startswith("the file ")
    assert "\n" not in message
    assert all(part in message for part in parts), message
    return message


class Payload:
    """Calls a function where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_foreign_call_is_refused_by_name_and_does_not_run(tmp_path, protocol):
    canary = tmp_path / "canary"
    payloads = {
        f"{os.system.__module__}.system": Payload(os.system, f"touch {canary}"),
        "builtins.eval": Payload(eval, f"open({str(canary)!r}, 'w')"),
        "builtins.exec": Payload(exec, f"open({str(canary)!r}, 'w')"),
        "builtins.getattr": Payload(getattr, "a", "upper"),
        "shutil.rmtree": Payload(shutil.rmtree, str(tmp_path)),
    }
    for name, payload in payloads.items():
        shown = name.replace("builtins", "__builtin__") if protocol < 3 else name
        data = pickle.dumps([1, payload], protocol)
        if protocol < 2:
            refused(data)  # by its protocol, its first instruction, or its name
        else:
            refused(data, f"names {shown},")
    assert not canary.exists()
    pickle.loads(pickle.dumps(next(iter(payloads.values()))))
    assert canary.exists()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def state(**values: str) -> bytes:
    return b"}(" + b"".join(text(key) + text(value) for key, value in values.items()) + b"u"


GLOBAL, CALLED = b"cmodels\nThing\n", b"ccollections\nOrderedDict\n"
ALLOWED = {"names": ["models.Thing"], "calls": {"collections.OrderedDict": lambda: {}}}
CRAFTED = {
    "dotted name": (text("os") + text("path.join") + b"\x93.", "names os.path.join,"),
    "dotted name that reads like an allowed one": (
        text("models.a") + text("Thing") + b"\x93.",
        "names models.a.Thing,",
    ),
    "module split elsewhere": (text("collections") + text("x.OrderedDict") + b"\x93.", "names collections.x"),
    "dots moved into the name": (text("") + text("models.Thing") + b"\x93.", "names "),
    "allowed text as another module": (text("models.Thing") + text("") + b"\x93.", "names "),
    "line break in a name": (text("os\nand") + text("system") + b"\x93.", r"names 'os\nand.system'"),
    "endless name": (text("o" * 5000) + text("system") + b"\x93.", "names 'ooo"),
    "name of a number": (b"K\x01K\x02\x93.", "damaged"),
    "class called": (GLOBAL + b")R.", "calls models.Thing,"),
    "text called": (text("os.system") + b")R.", "damaged"),
    "call without arguments": (CALLED + b"NR.", "damaged"),
    "call with wrong arguments": (CALLED + b"K\x01\x85R.", "damaged"),
    "object of a function": (CALLED + b")\x81.", "damaged"),
    "object with arguments": (GLOBAL + b"K\x01\x85\x81.", "damaged"),
    "object of a text": (text("models.Thing") + b")\x81.", "damaged"),
    "state of a class": (GLOBAL + state(__setstate__="x") + b"b.", "damaged"),
    "state of a number": (b"K\x01" + state(append="x") + b"b.", "damaged"),
    "state of a list": (b"]" + state(append="x") + b"b.", "damaged"),
    "state that is no dictionary": (GLOBAL + b")\x81" + b"K\x01b.", "damaged"),
    "state and slots": (GLOBAL + b")\x81" + b"}" + state(__class__="x") + b"\x86b.", "damaged"),
    "state with a key that is no text": (GLOBAL + b")\x81" + b"}K\x01K\x02sb.", "damaged"),
    "items of an object": (GLOBAL + b")\x81" + text("a") + text("b") + b"s.", "damaged"),
    "items into an object": (GLOBAL + b")\x81" + b"(K\x01e.", "damaged"),
    "key without a value": (b"}(K\x01u.", "damaged"),
    "key that is a list": (b"}]K\x01s.", "damaged"),
    "key that is a tuple": (b"})K\x01s.", "damaged"),
    "old object of a foreign class": (b"(ios\nsystem\n.", "names os.system,"),
    "old object of an allowed class": (b"(imodels\nThing\n.", "instruction INST"),
    "extension registry": (b"\x82\x01.", "instruction EXT1"),
    "object with keywords": (GLOBAL + b")}\x92.", "instruction NEWOBJ_EX"),
    "persistent id as text": (b"Pos.system\n.", "instruction PERSID"),
    "persistent id": (text("x") + b"Q.", "more than plain data"),
    "buffer": (b"\x97.", "instruction NEXT_BUFFER"),
    "no instruction": (b"\xff.", "instruction b'\\xff'"),
    "nothing on the stack": (b".", "damaged"),
    "below the stack": (b"K\x01\x86.", "damaged"),
    "below the mark": (b"K\x01K\x02(\x86t.", "damaged"),
    "no mark": (b"K\x01t.", "damaged"),
    "unknown memory": (b"h\x07.", "damaged"),
    "text beyond the end": (b"X\xff\xff\xff\xff.", "damaged"),
    "text in no encoding": (b"X\x01\x00\x00\x00\xff.", "damaged"),
    "name without an end": (b"cos", "damaged"),
    "older protocol": (b"\x80\x01K\x01.", "protocol 1: 2 to 5"),
    "newer protocol": (b"\x80\x06K\x01.", "protocol 6: 2 to 5"),
    "nothing": (b"", "damaged"),
    "no end": (b"K\x01", "damaged, near byte 2"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_pickle_is_refused(name):
    data, part = CRAFTED[name]
    refused(data, part, **ALLOWED)


def test_attributes_are_data_whatever_their_names():
    found = read_pickle(
        GLOBAL + b")\x81" + state(__setstate__="a", __class__="b", __dict__="c") + b"b.", "it", **ALLOWED
    )
    assert type(found) is Record
    assert found.state == {"__setstate__": "a", "__class__": "b", "__dict__": "c"}


def test_a_memory_of_any_number_takes_no_more_room():
    assert read_pickle(b"K\x07r\xff\xff\xff\xff" + b"j\xff\xff\xff\xff.", "the file") == 7


def test_nesting_is_bounded():
    found = read_pickle(b")" + b"\x85" * 90 + b".", "the file")
    for _ in range(90):
        (found,) = found
    assert found == ()
    refused(b")" + b"\x85" * 10_000 + b".", "nested more than")
    refused(b"}" + b")" + b"\x85" * 10_000 + b"K\x01s.", "damaged")


def test_what_is_shared_too_often_is_refused():
    doubled = b"]q\x00" + b"".join(b"(h\x00h\x00lq\x00" for _ in range(40))
    refused(doubled + b".", "shares")
    refused(b"]q\x00h\x00a.", "within itself")


@pytest.mark.parametrize("code", [b"T\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"B\xff\xff\xff\xff"])
def test_a_length_beyond_the_end_is_refused(code):
    refused(code + b"a.", "damaged")


# Checking the signature of every one of so many steps takes twenty times as long as they do.
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("code", [b"]", b"}", b")", b"N"])
def test_steps_are_bounded(code):
    refused(code * 300_000 + b".", "steps to read")


def test_every_truncation_is_refused():
    data = pickle.dumps([1, "text", {"a": (1.5, [None, True])}, 2**70], 4)
    for end in range(len(data)):
        refused(data[:end])


def test_any_damage_is_refused_or_harmless():
    data, generator = pickle.dumps([Thing(), {"a": (1.5, [None, True])}, Thing()], 2), random.Random(0)
    refusals = []
    for _ in range(1000):
        spoilt = bytearray(data)
        for position in generator.sample(range(len(data)), generator.choice([1, 3, 8])):
            spoilt[position] = generator.choice([generator.randrange(256), *b"(.abceqrsuR\x81\x85\x93\x94"])
        try:
            read_pickle(bytes(spoilt), "the file", [f"{Thing.__module__}.Thing"])
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 500
    assert not [message for message in refusals if "\n" in message]
