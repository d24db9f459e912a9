"""Result pickles: hostile, damaged and old ones are refused in one line; good ones come back equal."""

import copyreg
import io
import os
import pickle
import random
import resource
import signal
import struct
import sys
from collections import OrderedDict
from contextlib import suppress
from types import FunctionType

import numpy as np
import pandas as pd
import pytest
from numpy._core import numeric

from facecomp.records import pickles
from facecomp.records.files import InputError
from facecomp.records.pickles import read_pickle, read_pickle_bytes, write_pickle

MIB = 1 << 20

# --- a small assembler of pickle instructions -------------------------------------------------

PROTO = b"\x80\x04"
NONE, TRUE, FALSE, STOP, BUILD, EMPTY_DICT = b"N", b"\x88", b"\x89", b".", b"b", b"}"


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def raw_bytes(value):
    return b"B" + struct.pack("<I", len(value)) + value


def sequence(*items):
    return b"(" + b"".join(items) + b"t"


def listing(*items):
    return b"](" + b"".join(items) + b"e"


def mapping(**items):
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def ask(module, name):
    return text(module) + text(name) + b"\x93"


def call(function, *arguments):
    return function + sequence(*arguments) + b"R"


def new(kind, *arguments):
    return kind + sequence(*arguments) + b"\x81"


def whole(*parts):
    return PROTO + b"".join(parts) + STOP


def dtype(code):
    return call(ask("numpy", "dtype"), text(code), FALSE, TRUE)


def forged_dtype(code, names=NONE, fields=NONE, flags=0, size=-1):
    state = (integer(3), text("|"), NONE, names, fields, integer(size), integer(-1), integer(flags))
    return dtype(code) + sequence(*state) + BUILD


def frombuffer(raw, kind, *shape, core="numpy._core"):
    sizes = sequence(*map(integer, shape))
    return call(ask(f"{core}.numeric", "_frombuffer"), raw_bytes(raw), kind, sizes, text("C"))


def reconstruct(raw, kind, *shape, core="numpy._core", fortran=FALSE):
    nothing = (ask("numpy", "ndarray"), sequence(integer(0)), raw_bytes(b"b"))
    state = sequence(integer(1), sequence(*map(integer, shape)), kind, fortran, raw)
    return call(ask(f"{core}.multiarray", "_reconstruct"), *nothing) + state + BUILD


def old_index(kind, **parts):
    return call(ask("pandas.core.indexes.base", "_new_Index"), ask(*kind), mapping(**parts))


def old_frame(blocks, axes):
    """A data frame as pandas 1.5 wrote it; blocks are (values, start, stop)."""
    unpickle = ask("pandas._libs.internals", "_unpickle_block")
    slices = [call(ask("builtins", "slice"), *map(integer, (a, b, 1))) for _, a, b in blocks]
    made = [call(unpickle, v, s, integer(2)) for (v, *_), s in zip(blocks, slices, strict=True)]
    manager = ask("pandas.core.internals.managers", "BlockManager")
    return (
        new(ask("pandas.core.frame", "DataFrame"))
        + mapping(_mgr=call(manager, sequence(*made), listing(*axes)), _typ=text("dataframe"))
        + BUILD
    )


# --- reading where a crash, a hang or a flood of memory does no harm ---------------------------


def status_mib(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) // 1024


def in_child(work, memory=4096, seconds=40):
    """What `work()` returns as text, run in a forked process; "signal N" if it was killed."""
    if sys.platform != "linux":
        pytest.skip("needs fork and /proc")
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.close(readable)
            limit = (status_mib("VmSize") + memory) * MIB
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            os.write(writable, work().encode()[:60000])
        os._exit(0)
    os.close(writable)
    with open(readable, "rb") as answer:
        said = answer.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said if code == 0 else f"{said} signal {-code}"


def how_it_reads(data):
    """ "InputError", "value" (looked at, element by element), or the class of what escaped."""
    try:
        value = read_pickle_bytes(data, "x.pickle")
    except InputError:
        return "InputError"
    except BaseException as error:
        return f"{type(error).__name__} escaped"
    with suppress(Exception):
        repr(value)
    with suppress(Exception):
        np.asarray(value).tolist()
    del value
    return "value"


def peak_mib(data):
    """How a pickle reads, and how many MiB more than before that took."""
    before = status_mib("VmRSS")
    said = how_it_reads(data)
    return f"{said} {max(0, status_mib('VmHWM') - before)}"


# --- programs in disguise -----------------------------------------------------------------------


class Evil:
    """Its pickle runs a command when it is read."""

    def __init__(self, sentinel, function=os.system, wrap="touch {}"):
        self.sentinel, self.function, self.wrap = sentinel, function, wrap

    def __reduce__(self):
        return self.function, (self.wrap.format(self.sentinel),)


class Planted:
    """A class of the program's own, whose state is a path that it creates."""

    def __setstate__(self, path):
        open(path, "w").close()


def with_getattr(s):
    os_module = call(ask("builtins", "__import__"), text("os"))
    return call(call(ask("builtins", "getattr"), os_module, text("system")), text(f"touch {s}"))


def with_attrgetter(s):
    os_module = call(ask("builtins", "__import__"), text("os"))
    getter = call(ask("operator", "attrgetter"), text("system"))
    return call(call(getter, os_module), text(f"touch {s}"))


def with_partial(s):
    return call(call(ask("functools", "partial"), ask("os", "system"), text(f"touch {s}")))


def with_reconstructor(s):
    rebuild = ask("copyreg", "_reconstructor")
    thing = call(rebuild, ask("__main__", "Planted"), ask("builtins", "object"), NONE)
    return thing + text(str(s)) + BUILD


def inst(module, name, argument):
    return b"(" + text(argument) + f"i{module}\n{name}\n".encode()


def obj(module, name, argument):
    return b"(" + ask(module, name) + text(argument) + b"o"


ATTACKS = {
    "os.system": lambda s: call(ask("os", "system"), text(f"touch {s}")),
    "posix.system": lambda s: call(ask("posix", "system"), text(f"touch {s}")),
    "builtins.eval": lambda s: call(ask("builtins", "eval"), text(f"open({str(s)!r}, 'w')")),
    "builtins.exec": lambda s: call(ask("builtins", "exec"), text(f"open({str(s)!r}, 'w')")),
    "builtins.open": lambda s: call(ask("builtins", "open"), text(str(s)), text("w")),
    "builtins.getattr": with_getattr,
    "subprocess.call": lambda s: call(
        ask("subprocess", "call"), listing(text("touch"), text(str(s)))
    ),
    "subprocess.Popen": lambda s: new(
        ask("subprocess", "Popen"), listing(text("touch"), text(str(s)))
    ),
    "__main__.Planted": lambda s: new(ask("__main__", "Planted")) + text(str(s)) + BUILD,
    "copyreg._reconstructor": with_reconstructor,
    "functools.partial": with_partial,
    "operator.attrgetter": with_attrgetter,
    "posix.mkdir": lambda s: inst("posix", "mkdir", str(s)),
    "os.mkdir": lambda s: obj("os", "mkdir", str(s)),
    "os.makedirs": lambda s: f"cos\nmakedirs\n(V{s}\ntR".encode(),
}


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Planted", Planted, raising=False)
    return tmp_path / "sentinel"


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_by_name_and_does_nothing(name, sentinel):
    with pytest.raises(InputError, match=f"refused, it asks for {name},"):
        read_pickle_bytes(whole(ATTACKS[name](sentinel)))
    assert not sentinel.exists()


@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "subprocess.Popen"])
def test_attack_would_work_on_plain_pickle(name, sentinel):
    data = whole(ATTACKS[name](sentinel))
    with suppress(TypeError):  # a class that is told to be built by object.__new__
        pickle.loads(data)
    assert sentinel.exists()


WRAPPINGS = {
    "alone": lambda e: e,
    "list": lambda e: [1, [e]],
    "tuple": lambda e: (1, (e,)),
    "dict value": lambda e: {"a": {"b": e}},
    "dict key": lambda e: {e: 1},
    "ordered dict": lambda e: OrderedDict(a=e),
    "set": lambda e: {e},
    "object array": lambda e: np.array([1, e], dtype=object),
    "object column": lambda e: object_frame({"a": [1, 2], "b": ["x", e]}),
    "object index": lambda e: object_frame({"a": [1]}).set_axis(pd.Index([e], dtype=object)),
    "column name": lambda e: pd.DataFrame([[1]], columns=pd.Index([e], dtype=object)),
}


def object_frame(columns):
    frame = pd.DataFrame({k: pd.Series(v, dtype=None) for k, v in columns.items()})
    texts = [c for c in frame if frame[c].dtype == "str"]
    return frame.astype(dict.fromkeys(texts, object)).set_axis(
        pd.Index(list(columns), dtype=object), axis=1
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_attack_inside_a_container_is_refused(wrapping, protocol, sentinel):
    data = pickle.dumps(WRAPPINGS[wrapping](Evil(sentinel)), protocol)
    first = r"posix\.system" if protocol > 3 else r"(posix\.system|\w+\.set|_codecs\.encode)"
    with pytest.raises(InputError, match=f"refused, it asks for {first},"):
        read_pickle_bytes(data)
    assert not sentinel.exists()


@pytest.mark.parametrize("protocol", [0, 1])
def test_protocols_0_and_1_are_refused_unread(protocol, sentinel):
    with pytest.raises(InputError, match="is not a pickle of protocol 2 or later"):
        read_pickle_bytes(pickle.dumps(Evil(sentinel), protocol))
    assert not sentinel.exists()


@pytest.mark.parametrize("code", [b"\x82\xc8", b"\x83\xc8\x00", b"\x84\xc8\x00\x00\x00"])
def test_extension_codes_are_refused(code, sentinel):
    data = whole(code, sequence(text(f"touch {sentinel}")), b"R")
    with pytest.raises(InputError, match="200|EXT"):
        read_pickle_bytes(data, "x")
    copyreg.add_extension("posix", "system", 200)
    try:
        with pytest.raises(InputError, match=r"posix\.system|EXT"):
            read_pickle_bytes(data)
    finally:
        copyreg.remove_extension("posix", "system", 200)
    assert not sentinel.exists()


@pytest.mark.parametrize("pid", [b"Pposix.system\n", text("posix") + b"Q"])
def test_persistent_ids_are_refused(pid):
    with pytest.raises(InputError, match=r"points to an object outside itself \('posix"):
        read_pickle_bytes(whole(pid))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "ndarray.tofile"),
        ("numpy", "load"),
        ("numpy", "dtype.__class__"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("collections.OrderedDict", "__init__"),
        ("builtins", "slice.__reduce__"),
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("pandas", "read_pickle"),
        ("pandas", "DataFrame.eval"),
        ("", "eval"),
        ("numpy ", "ndarray"),
        ("NUMPY", "ndarray"),
    ],
)
def test_near_misses_of_allowed_names_are_refused(module, name):
    with pytest.raises(InputError, match="refused, it asks for"):
        read_pickle_bytes(whole(ask(module, name)))


# --- attacks with nothing but allowed names -----------------------------------------------------

SNAPSHOT = ("__code__", "__defaults__", "__kwdefaults__", "__name__", "__dict__", "__doc__")


def functions():
    own = [f for f in vars(pickles).values() if isinstance(f, FunctionType)]
    return [numeric._frombuffer, *own]


def state_of(function):
    return [repr(getattr(function, name)) for name in SNAPSHOT]


@pytest.mark.parametrize("name", sorted(pickles.allowed_names()), ids=".".join)
@pytest.mark.parametrize("slots", [True, False])
def test_setting_attributes_of_an_allowed_name_changes_nothing(name, slots):
    values = mapping(__defaults__=sequence(integer(1)), __name__=text("evil"), note=integer(1))
    state = NONE + values + b"\x86" if slots else values
    before = [state_of(f) for f in functions()]
    classes = [dict(vars(c)) for c in (OrderedDict, pickles._Frame, pickles._Manager)]
    kept = [(f, f.__defaults__, f.__name__) for f in functions()]
    try:
        with suppress(InputError):
            read_pickle_bytes(whole(ask(*name), state, BUILD))
        assert [state_of(f) for f in functions()] == before
        assert [dict(vars(c)) for c in (OrderedDict, pickles._Frame, pickles._Manager)] == classes
    finally:
        for function, defaults, its_name in kept:
            function.__defaults__, function.__name__ = defaults, its_name
            function.__dict__.pop("note", None)


OBJECT_FIELD = b"}" + text("a") + sequence(dtype("O8"), integer(0)) + b"s"
FAR_FIELD = b"}" + text("a") + sequence(dtype("f8"), integer(1 << 30)) + b"s"
NDARRAY = ask("numpy", "ndarray")
CORRUPTIONS = {
    "bytes as pointers": frombuffer(b"A" * 16, forged_dtype("O8"), 2),
    "bytes as pointers, rebuilt": reconstruct(raw_bytes(b"A" * 16), forged_dtype("O8"), 2),
    "bytes as pointers in an index": old_index(
        ("pandas", "Index"), data=frombuffer(b"A" * 16, forged_dtype("O8"), 2)
    ),
    "bytes as pointers in a field": frombuffer(
        b"A" * 16, forged_dtype("V8", sequence(text("a")), OBJECT_FIELD, size=8), 2
    ),
    "field beyond the element": frombuffer(
        b"A" * 8, forged_dtype("V8", sequence(text("a")), FAR_FIELD, size=8), 1
    ),
    "scalar with a field beyond it": call(
        ask("numpy._core.multiarray", "scalar"),
        forged_dtype("V8", sequence(text("a")), FAR_FIELD, size=8),
        raw_bytes(b"A" * 8),
    ),
    "object array over a buffer": call(
        NDARRAY, sequence(integer(2)), text("O8"), raw_bytes(b"A" * 16)
    ),
    "object array over a buffer, new": new(
        NDARRAY, sequence(integer(2)), text("O8"), raw_bytes(b"A" * 16)
    ),
    "object array without a list": reconstruct(raw_bytes(b"A" * 16), dtype("O8"), 2),
    "object array with a short list": reconstruct(listing(integer(1)), dtype("O8"), 1000),
    "negative size": reconstruct(raw_bytes(b"A" * 16), dtype("f8"), -2),
    "more than the bytes": reconstruct(raw_bytes(b"A" * 16), dtype("f8"), 1 << 40),
    "product overflows": reconstruct(raw_bytes(b""), dtype("f8"), 1 << 32, 1 << 32),
    "object array from bytes": frombuffer(b"A" * 16, dtype("O8"), 2),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_forged_arrays_are_refused_before_anything_reads_foreign_memory(name):
    assert in_child(lambda: how_it_reads(whole(CORRUPTIONS[name]))) == "InputError"


DEEP = 300_000
NESTED = {
    "tuples as a key": (b"})" + b"\x85" * DEEP + b"Ns", "InputError"),
    "lists": (b"]" * DEEP + b"a" * (DEEP - 1), "InputError"),
    "dicts": (b"}" + b"N}" * DEEP + b"s" * DEEP, "InputError"),
    "slices": (
        ask("builtins", "slice") + b"q\x000N" + b"q\x010h\x00h\x01\x85R" * 200_000,
        "InputError",
    ),
    "marks": (b"(" * DEEP, "InputError"),
    "one's own list": (b"]\x94h\x00a", "InputError"),
    "one's own dict": (b"}\x94Nh\x00s", "InputError"),
    "one's own tuple": (b"]\x94h\x00\x85a", "InputError"),
}


@pytest.mark.parametrize("name", NESTED)
def test_endless_nesting_is_refused_without_a_crash(name):
    program, expected = NESTED[name]
    assert in_child(lambda: how_it_reads(whole(program))) == expected


ONE_CELL = frombuffer(struct.pack("<d", 0.5), dtype("f8"), 1, 1)


def count_to(stop):
    parts = {"start": 0, "stop": stop, "step": 1}
    return old_index(("pandas", "RangeIndex"), **{k: integer(v) for k, v in parts.items()})


FLOODS = {
    "bytes of 2**60": b"\x8e" + struct.pack("<Q", 1 << 60) + b"a",
    "bytes of 2**31": b"\x8e" + struct.pack("<Q", 1 << 31) + b"a",
    "text of 2**60": b"\x8d" + struct.pack("<Q", 1 << 60) + b"a",
    "byte array of 2**31": b"\x96" + struct.pack("<Q", 1 << 31) + b"a",
    "integer of 2**31 bytes": b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"a",
    "frame of 2**62": b"\x95" + struct.pack("<Q", 1 << 62) + b"N",
    "memo place 2**26": b"Nr" + struct.pack("<I", 1 << 26),
    "memo place in words": b"Np67108864\n",
    "empty memo place": b"j" + struct.pack("<I", 1 << 31),
    "array of 2**26 objects": call(NDARRAY, sequence(integer(1 << 26)), text("O8")),
    "2**26 objects, rebuilt": call(
        ask("numpy._core.multiarray", "_reconstruct"),
        NDARRAY,
        sequence(integer(1 << 26)),
        text("O8"),
    ),
    "columns without blocks": old_frame([], [count_to(1 << 40), count_to(1)]),
    "more columns than blocks": old_frame([(ONE_CELL, 0, 1)], [count_to(1 << 26), count_to(1)]),
    "more rows than values": old_frame([(ONE_CELL, 0, 1)], [count_to(1), count_to(1 << 25)]),
    "elements of no size": old_index(
        ("pandas", "Index"), data=reconstruct(raw_bytes(b""), dtype("S0"), 20_000_000)
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_claims_of_great_size_are_refused_in_little_memory(name):
    said, used = in_child(lambda: peak_mib(whole(FLOODS[name]))).split(maxsplit=1)
    assert said == "InputError"
    assert int(used) < 250


@pytest.mark.parametrize("data", [whole(b"h\x05"), whole(b"0"), whole(b"a"), whole(b"R"), whole()])
def test_programs_that_use_what_is_not_there_are_refused(data):
    with pytest.raises(InputError, match=r"^x\.pickle: is not a readable pickle"):
        read_pickle_bytes(data, "x.pickle")


HALF_MADE = {
    "frame as a key": b"}" + new(ask("pandas", "DataFrame")) + NONE + b"s",
    "frame in an array": reconstruct(listing(new(ask("pandas", "DataFrame"))), dtype("O8"), 1),
    "frame in a set": b"\x8f(" + new(ask("pandas", "DataFrame")) + b"\x90",
    "the class itself": ask("pandas", "DataFrame"),
    "the manager's class": ask("pandas.core.internals.managers", "BlockManager"),
    "manager": call(ask("pandas.core.internals.managers", "BlockManager")),
    "frame without a state": new(ask("pandas", "DataFrame")),
    "frame without a manager": new(ask("pandas", "DataFrame")) + mapping() + BUILD,
}


@pytest.mark.parametrize("name", HALF_MADE)
def test_no_half_made_frame_comes_out(name):
    with pytest.raises(InputError):
        read_pickle_bytes(whole(HALF_MADE[name]))


def test_frame_of_an_old_pandas_is_named_as_such():
    manager = new(ask("pandas.core.internals.managers", "BlockManager")) + sequence() + BUILD
    with pytest.raises(InputError, match=r"^x: a data frame of a pandas version before 1\.3$"):
        read_pickle_bytes(whole(manager), "x")


# --- torch: a pickle inside the pickle -----------------------------------------------------------


def legacy_file(thing):
    import torch

    serialization = torch.serialization
    heads = (serialization.MAGIC_NUMBER, serialization.PROTOCOL_VERSION, {"little_endian": True})
    program = thing if isinstance(thing, bytes) else pickle.dumps(thing, 2)
    return b"".join([*(pickle.dumps(head, 2) for head in heads), program, pickle.dumps([], 2)])


def zipped_file(thing):
    import torch

    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "inner", [legacy_file, zipped_file, lambda e: pickle.dumps(e, 2), lambda e: pickle.dumps(e, 4)]
)
def test_attack_in_the_bytes_of_a_torch_storage_is_refused(inner, sentinel):
    load = ask("torch.storage", "_load_from_bytes")
    data = whole(call(load, raw_bytes(inner(Evil(sentinel)))))
    with pytest.raises(InputError, match="^x.pickle: ") as caught:
        read_pickle_bytes(data, "x.pickle")
    assert not sentinel.exists()
    assert "weights_only" not in str(caught.value)  # no advice to open it without protection


def test_attack_in_a_legacy_torch_file_is_named(sentinel):
    load = ask("torch.storage", "_load_from_bytes")
    with pytest.raises(InputError, match=r"posix\.system"):
        read_pickle_bytes(whole(call(load, raw_bytes(legacy_file(Evil(sentinel))))))


@pytest.mark.parametrize(
    "program",
    [b"})" + b"\x85" * DEEP + b"Ns", b"]" * DEEP + b"a" * (DEEP - 1), b"N", b"}", b"K\x01"],
    ids=["tuples as a key", "lists", "nothing", "dict", "number"],
)
def test_torch_bytes_that_hold_no_storage_are_refused(program):
    file = legacy_file(b"\x80\x02" + program + STOP)
    data = whole(call(ask("torch.storage", "_load_from_bytes"), raw_bytes(file)))
    assert in_child(lambda: how_it_reads(data)) == "InputError"


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_tensor_larger_than_its_storage_is_refused():
    import torch

    inner = io.BytesIO()
    torch.save(torch.arange(4.0).storage(), inner, _use_new_zipfile_serialization=False)
    storage = call(ask("torch.storage", "_load_from_bytes"), raw_bytes(inner.getvalue()))
    rebuild, shape = ask("torch._utils", "_rebuild_tensor_v2"), sequence(integer(1000))
    tensor = call(rebuild, storage, integer(0), shape, sequence(integer(1)), FALSE, NONE)
    with pytest.raises(InputError):
        read_pickle_bytes(whole(tensor))


def test_tensor_of_something_else_than_a_storage_is_refused():
    rebuild = ask("torch._utils", "_rebuild_tensor_v2")
    tensor = call(rebuild, text("storage"), integer(0), sequence(), sequence(), FALSE, NONE)
    with pytest.raises(InputError):
        read_pickle_bytes(whole(tensor))


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html></html>", "is a web page, not a pickle"),
        (b"\n <HTML><body>log in</body></html>", "is a web page, not a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"a,b\n1,2\n", "is not a pickle of protocol 2 or later (first bytes b'a,b"),
        (b"PK\x03\x04", "is not a pickle of protocol 2 or later"),
        (b"\x1f\x8b\x08\x00", "is not a pickle of protocol 2 or later"),
        (PROTO + b"N", "is truncated (3 bytes without the end mark of a pickle)"),
        (b"\x80\x63N.", "unsupported pickle protocol: 99"),
        (b"\x80.", "x.pickle: "),
    ],
)
def test_first_fault_of_what_is_no_pickle(data, fault):
    with pytest.raises(InputError) as caught:
        read_pickle_bytes(data, "x.pickle")
    assert fault in str(caught.value)
    assert str(caught.value).startswith("x.pickle: ")


@pytest.mark.parametrize("make", [lambda p: p / "absent", lambda p: p])
def test_file_that_cannot_be_read(make, tmp_path):
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        read_pickle(path)
    assert str(caught.value).startswith(f"{path}: cannot be read (")


def tensor():
    import torch

    return torch.arange(12.0).reshape(3, 4)


SAMPLES = {
    "array": lambda: {"a": np.arange(5.0), "b": np.float64(0.5)},
    "objects": lambda: np.array(["x", 1, None], dtype=object),
    "frame": lambda: object_frame({"a": [1, 2], "b": [0.5, 1.5], "c": ["x", "y"]}),
    "containers": lambda: {"a": [1, (2.5, "x")], "b": OrderedDict(c=True), "d": {1, 2}},
    "tensor": tensor,
}


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", SAMPLES)
def test_truncation_at_every_byte_is_refused(name, protocol):
    data = pickle.dumps(SAMPLES[name](), protocol)
    read_pickle_bytes(data)
    for length in range(len(data)):
        with pytest.raises(InputError):
            read_pickle_bytes(data[:length])


def damaged(data, dice):
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        place = dice.randrange(2, len(out))
        out[place] = dice.choice((out[place] ^ 1 << dice.randrange(8), dice.randrange(256)))
    if dice.random() < 0.2:
        place = dice.randrange(2, len(out))
        out[place : place + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
    return bytes(out)


def worst_of_damage(data, tries, seed):
    """How many read as a value, or the first damage that let another exception out."""
    dice, values = random.Random(seed), 0
    before = status_mib("VmRSS")
    for i in range(tries):
        broken = damaged(data, dice)
        said = how_it_reads(broken)
        values += said == "value"
        if "escaped" in said or status_mib("VmHWM") - before > 300:
            return f"try {i}: {said}, {status_mib('VmHWM') - before} MiB: {broken!r}"
    return f"fine, {0 < values < tries}"


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", SAMPLES)
def test_random_damage_gives_a_value_or_an_input_error(name, protocol):
    data = pickle.dumps(SAMPLES[name](), protocol)
    read_pickle_bytes(data)
    assert in_child(lambda: worst_of_damage(data, 250, seed=protocol)) == "fine, True"


# --- round trips ------------------------------------------------------------------------------------

FRAMES = {
    "numbers": lambda: object_frame({"a": [1, 2, 3], "b": [0.5, np.nan, -1.5]}),
    "mixed": lambda: object_frame({"SN": ["SN1", "SN2"], "n": [1, 2], "ok": [True, False]}),
    "int64 index": lambda: object_frame({"a": [1.0, 2.0]}).set_axis(
        pd.Index([7, 3], dtype="int64")
    ),
    "float32 and int8": lambda: object_frame(
        {"a": np.float32([0.1, 0.2]), "b": np.int8([1, -1]), "c": np.float32([1, 2])}
    ),
    "named index": lambda: object_frame({"a": [1]}).set_axis(
        pd.Index(["p"], dtype=object, name="person")
    ),
    "int columns": lambda: pd.DataFrame(np.arange(6).reshape(2, 3)),
    "range index": lambda: object_frame({"a": [1, 2]}).set_axis(pd.RangeIndex(10, 14, 2, name="r")),
    "no rows": lambda: object_frame({"a": [1.0], "b": [2]}).iloc[:0],
    "duplicate columns": lambda: pd.DataFrame(
        [[1, 2.5, "x"]], columns=pd.Index(["a", "a", "b"], dtype=object)
    ).astype({"b": object}),
    "interleaved": lambda: pd.DataFrame({0: [1, 2], 1: [0.5, 1.5], 2: [3, 4], 3: [2.5, 3.5]}),
    "lists in cells": lambda: object_frame({"a": [1, 2]}).assign(
        a=pd.Series([[1], [2, 3]], dtype=object)
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_comes_back_equal(name, tmp_path):
    frame = FRAMES[name]()
    again = read_pickle(write_pickle(tmp_path / "x.pickle", {"f": [(frame,)]}))["f"][0][0]
    pd.testing.assert_frame_equal(again, frame)


def test_frame_of_strings_comes_back_or_the_message_says_why(tmp_path):
    frame = pd.DataFrame({"a": ["x", "y"]})
    try:
        again = read_pickle(write_pickle(tmp_path / "x.pickle", frame))
    except InputError as error:
        assert "ArrowStringArray" in str(error) or "StringArray" in str(error)  # noqa: PT017
        assert not (tmp_path / "x.pickle").exists()
    else:
        pd.testing.assert_frame_equal(again, frame)


ARRAYS = [
    np.arange(6, dtype="int64").reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3)),
    np.array(3.5),
    np.array([], dtype="f4"),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.arange(4, dtype=">i4"),
    np.arange(10, dtype="u1")[::3],
    np.array(["ab", "c"]),
    np.array([b"ab", b"c"]),
    np.array([1, "x", None, (2, 3)], dtype=object),
    np.float16([0.5]),
]


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_array_comes_back_equal(array, protocol):
    again = read_pickle_bytes(pickle.dumps(array, protocol))
    assert type(again) is np.ndarray
    native = array.dtype.newbyteorder("=")
    assert (again.dtype.newbyteorder("="), again.shape) == (native, array.shape)
    assert again.tolist() == array.tolist()


def test_fortran_order_is_kept(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    again = read_pickle(write_pickle(tmp_path / "x.pickle", array))
    assert (again.flags.f_contiguous, again.flags.c_contiguous) == (True, False)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [np.float64(0.1), np.int32(-3), np.bool_(True), np.float32(0.5), np.str_("x")],
    ids=repr,
)
def test_numpy_scalar_comes_back_with_its_type(value, protocol):
    again = read_pickle_bytes(pickle.dumps({"x": value}, protocol))["x"]
    assert (type(again), again) == (type(value), value)


def test_one_array_twice_comes_back_twice():
    array = np.arange(3)
    first, second = read_pickle_bytes(pickle.dumps([array, array], 4))
    assert first.tolist() == second.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "value", [None, True, 1 << 70, -1.5, "ü", b"\x00", [], (), {}, {1: {2: [3]}}, OrderedDict(a=1)]
)
def test_plain_value_comes_back_with_its_type(value, tmp_path):
    again = read_pickle(write_pickle(tmp_path / "x.pickle", value))
    assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_tensor_comes_back_equal(kind, tmp_path):
    import torch

    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, kind))
    again = read_pickle(write_pickle(tmp_path / "x.pickle", {"t": tensor}))["t"]
    assert again.dtype == tensor.dtype
    assert torch.equal(again, tensor)


def test_views_of_one_storage_come_back_equal(tmp_path):
    import torch

    base = torch.arange(24.0).reshape(4, 6)
    views = [base, base[1:, ::2], base.T, base[3], base[0, 0], base[:0]]
    again = read_pickle(write_pickle(tmp_path / "x.pickle", views))
    assert [v.shape for v in again] == [v.shape for v in views]
    assert all(torch.equal(a, v) for a, v in zip(again, views, strict=True))
    assert [v.stride() for v in again] == [v.stride() for v in views]


def test_what_the_reader_refuses_is_not_written(tmp_path):
    path = write_pickle(tmp_path / "x.pickle", [1])
    with pytest.raises(InputError, match="refused, it asks for"):
        write_pickle(path, Evil("nothing"))
    assert read_pickle(path) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.pickle"]


# --- what old versions wrote ----------------------------------------------------------------------


def test_frame_of_pandas_1_with_int64_index():
    numbers = np.array([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]])
    names = reconstruct(
        listing(*map(text, ("SN1", "SN2", "SN1"))), dtype("O8"), 1, 3, core="numpy.core"
    )
    columns = reconstruct(listing(*map(text, ("x", "y", "SN"))), dtype("O8"), 3, core="numpy.core")
    rows = frombuffer(np.array([7, 3, 9]).tobytes(), dtype("i8"), 3, core="numpy.core")
    frame = old_frame(
        [
            (frombuffer(numbers.tobytes(), dtype("f8"), 2, 3, core="numpy.core"), 0, 2),
            (names, 2, 3),
        ],
        [
            old_index(("pandas.core.indexes.base", "Index"), data=columns, name=NONE),
            old_index(("pandas.core.indexes.numeric", "Int64Index"), data=rows, name=NONE),
        ],
    )
    expected = object_frame(
        {"x": numbers[0], "y": numbers[1], "SN": ["SN1", "SN2", "SN1"]}
    ).set_axis(pd.Index([7, 3, 9], dtype="int64"))
    pd.testing.assert_frame_equal(read_pickle_bytes(whole(frame)), expected)


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_arrays_and_scalars_of_both_numpy_generations(core):
    scalar = call(
        ask(f"{core}.multiarray", "scalar"), dtype("f8"), raw_bytes(struct.pack("<d", 0.25))
    )
    array = reconstruct(raw_bytes(struct.pack("<3i", 1, 2, 3)), dtype("i4"), 3, core=core)
    flat = frombuffer(struct.pack("<2f", 0.5, 1.5), dtype("f4"), 2, core=core)
    one, three, two = read_pickle_bytes(whole(sequence(scalar, array, flat)))
    assert (type(one), float(one)) == (np.float64, 0.25)
    assert (three.dtype, three.tolist()) == (np.dtype("i4"), [1, 2, 3])
    assert (two.dtype, two.tolist()) == (np.dtype("f4"), [0.5, 1.5])


def test_big_endian_numbers_are_read_as_such():
    kind = (
        dtype("f8")
        + sequence(integer(3), text(">"), NONE, NONE, NONE, integer(-1), integer(-1), integer(0))
        + BUILD
    )
    array = read_pickle_bytes(whole(reconstruct(raw_bytes(struct.pack(">d", 2.5)), kind, 1)))
    assert array.tolist() == [2.5]
