"""Reads `.pth` files as tensors by key, without running any code in the file or using more memory than its size warrants.

Such a file is a zip archive. It holds one pickle, which describes tensors as views of storages, and a member for each storage. Older
files are several pickles in a row, then the storages. torch.load(weights_only=True) runs no code, but a file can make it use any amount
of memory; here the archive's directory and the pickle are checked before a tensor is made.
"""

from __future__ import annotations

import itertools
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from ..errors import WeightsError, first_line, shorten
from ..formats.archive import open_stored
from .pickle_reader import DamagedError, Name, RefusedError, Vocabulary, is_shape, read_pickle

_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}
#: What a checkpoint may hold beside its weights. It is skipped.
_IGNORED_NAMES = ("torch.device", "collections.Counter", "builtins.set", "builtins.complex", "_codecs.encode")
_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool", "complex64", "complex128")
_REFUSED = {
    "torch._utils._rebuild_sparse_tensor": "it holds a sparse tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "it holds a meta tensor, which has no values",
    "torch._utils._rebuild_qtensor": "it holds a quantised tensor",
    "torch._utils._rebuild_nested_tensor": "it holds a nested tensor",
    "torch._utils._rebuild_wrapper_subclass": "it holds a tensor of a class of its own",
    "torch._tensor._rebuild_from_type_v2": "it holds a tensor of a class of its own",
    "torch._utils._rebuild_tensor_v3": "it holds a tensor of a number type that weights do not have",
}
# How files of torch.save began before it wrote archives: a magic number, then the protocol version.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


#: STDC's backbone has each of its tensors under two names.
_MOST_NAMES = 4

#: A view within its storage: offset, size and stride.
_Place = tuple[int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A tensor as a part of a storage; offset and stride count values, not bytes."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """The index after its last value."""
        reach = sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        return self.offset if 0 in self.size else self.offset + reach + 1

    def place(self) -> _Place:
        """What tells it from other views of the storage."""
        return self.offset, self.size, self.stride

    def part(self) -> slice:
        """Its bytes in the storage."""
        return slice(self.offset * self.storage.dtype.itemsize, self.end * self.storage.dtype.itemsize)


_Read = Callable[[_Storage], bytes]


def parse_torch(data: bytes, name: str) -> dict[str, Tensor]:
    """The bytes of a `.pth` file as tensors by key; `name` is used in error messages. Raises WeightsError.

    A tensor that a network holds under several names is one here too; all others have memory of their own.

    If there is a dictionary under "state_dict" or "model", it is used instead of the whole.
    """
    try:
        content, read = _archive(data) if data.startswith(b"PK") else _legacy(data)
        for key in ("state_dict", "model"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise RefusedError("it does not hold tensors by name")
        views = {key: _view(key, value) for key, value in content.items()}
        _refuse_sharing(views)
        tensors = _tensors(views, read)
    except (RefusedError, DamagedError, zipfile.BadZipFile) as error:
        hint = "Save network.state_dict() with torch.save, or as safetensors."
        raise WeightsError(f"{name} is refused: it is not a file of plain PyTorch weights ({error}).", hint) from error
    return tensors


def _archive(data: bytes) -> tuple[object, _Read]:
    if b"/constants.pkl" in data:
        raise RefusedError("it is a TorchScript program")
    archive = open_stored(data)
    names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise DamagedError("its archive does not hold one data.pkl")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _member(archive, f"{folder}byteorder") != b"little":
        raise RefusedError("it was saved on a big-endian machine")
    content, _ = read_pickle(_member(archive, names[0]), _vocabulary())
    return content, lambda storage: _member(archive, f"{folder}data/{storage.key}")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError as error:
        raise DamagedError(f"its archive holds no {shorten(name)}") from error
    except Exception as error:  # a damaged file makes struct, seek or the CRC-32 check fail
        raise DamagedError(f"{shorten(name)} cannot be read: {first_line(error)}") from error


def _legacy(data: bytes) -> tuple[object, _Read]:
    if not data.startswith(_LEGACY):
        raise DamagedError("it begins as no file of torch.save does")
    system, at = read_pickle(data, _vocabulary(), len(_LEGACY))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("it was saved on a big-endian machine")
    storages: dict[str, _Storage] = {}
    content, at = read_pickle(data, _vocabulary(storages), at)
    keys, at = read_pickle(data, _vocabulary(), at)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise DamagedError("it does not list its storages")
    places = {}
    for key in keys:
        length = int.from_bytes(data[at : at + 8], "little") * storages[key].dtype.itemsize
        places[key] = slice(at + 8, at + 8 + length)
        at += 8 + length
    if at > len(data):
        raise DamagedError("it was cut short")
    return content, lambda storage: data[places[storage.key]] if storage.key in places else b""


def _vocabulary(storages: dict[str, _Storage] | None = None) -> Vocabulary:
    """What the pickle of a `.pth` file may use; adds the storages that it names to `storages`."""
    calls = {
        "torch._utils._rebuild_tensor": _rebuild,
        "torch._utils._rebuild_tensor_v2": _rebuild,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch.Size": _only_tuple,
        "collections.OrderedDict": _empty_dict,
        **dict.fromkeys(_IGNORED_NAMES, _pass_over),
    }
    inert = [*_STORAGES, *(f"torch.{name}" for name in _DTYPES)]
    names = {name: Name(name, call) for name, call in calls.items()} | {name: Name(name) for name in inert}

    def refer(identity: object) -> _Storage:
        match identity:
            case ("storage", Name(name=kind), str(key), str(location), int(count), *rest) if kind in _STORAGES and rest in ([], [None]):
                if location == "meta":
                    raise RefusedError("it holds a meta tensor, which has no values")
                storage = _Storage(key, _STORAGES[kind], count)
                if storages is not None:
                    storages[key] = storage
                return storage
        raise RefusedError("it refers to something that is not a tensor's storage")

    return Vocabulary(names, _build, refer, (str, int), _REFUSED)


def _rebuild(arguments: tuple[object, ...]) -> _View:
    match arguments:
        case (_Storage() as storage, int(offset), size, stride, *_):
            if not is_shape(size) or not _is_stride(stride, len(size)) or offset < 0:
                raise RefusedError("it holds a tensor of an impossible shape")
            return _View(storage, offset, size, stride)
    raise RefusedError("it holds a tensor that is not a part of a storage")


def _is_stride(value: object, axes: int) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and len(value) == axes and all(type(step) is int and step >= 0 for step in value)


def _parameter(arguments: tuple[object, ...]) -> _View:
    match arguments:
        case (_View() as view, *_):
            return view
    raise RefusedError("it holds a parameter that is not a tensor")


def _only_tuple(arguments: tuple[object, ...]) -> tuple[object, ...]:
    match arguments:
        case (tuple() as items,):
            return items
    raise RefusedError("it makes a size of something else")


def _empty_dict(arguments: tuple[object, ...]) -> dict[str, object]:
    if arguments:
        raise RefusedError("it fills a dictionary in an unknown way")
    return {}


def _pass_over(arguments: tuple[object, ...]) -> None:
    return None


def _build(target: object, state: object) -> None:
    """Ignores the attribute of a state dict that holds the versions of its modules. Nothing else may be changed."""
    if not isinstance(target, dict):
        raise RefusedError("it changes something that is not a state dict")


def _view(key: str, value: object) -> _View:
    """Checks the view under a key: it must stay within its storage and use each value once."""
    quoted = repr(shorten(key))
    if not isinstance(value, _View):
        raise RefusedError(f"{quoted} is not a tensor")
    if value.end > value.storage.count:
        raise RefusedError(f"{quoted} reaches beyond its storage")
    axes = [] if 0 in value.size else sorted((step, size) for step, size in zip(value.stride, value.size, strict=True) if size > 1)
    extent = 1
    for step, size in axes:
        if step == 0:
            raise RefusedError(f"{quoted} is expanded: it repeats its values")
        if step < extent:
            raise RefusedError(f"{quoted} overlaps itself")
        extent += (size - 1) * step
    return value


def _refuse_sharing(views: Mapping[str, _View]) -> None:
    """Raises RefusedError if two tensors share bytes but are not the same. Thousands of views of one storage would fill the memory, since
    each is copied; and a tensor has a few names at most, since each name is checked."""
    for keys in _by_storage(views).values():
        same: defaultdict[_Place, list[str]] = defaultdict(list)
        for key in keys:
            if 0 not in views[key].size:
                same[views[key].place()].append(key)
        crowded = next((names for names in same.values() if len(names) > _MOST_NAMES), None)
        if crowded is not None:
            raise RefusedError(f"{shorten(crowded[0])!r} has {len(crowded)} names")
        parts = sorted((part.start, part.stop, names[0]) for names in same.values() for part in (views[names[0]].part(),))
        for (_, end, one), (start, _, other) in itertools.pairwise(parts):
            if start < end:
                raise RefusedError(f"{shorten(one)!r} and {shorten(other)!r} overlap: they share values")


def _by_storage(views: Mapping[str, _View]) -> dict[str, list[str]]:
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for key, view in views.items():
        keys[view.storage.key].append(key)
    return keys


def _tensors(views: Mapping[str, _View], read: _Read) -> dict[str, Tensor]:
    """The tensors in the order of `views`; each storage is read once."""
    tensors = {}
    for keys in _by_storage(views).values():
        data = read(views[keys[0]].storage)
        made: dict[_Place, Tensor] = {}
        for key in keys:
            place = views[key].place()
            if place not in made:
                made[place] = _tensor(views[key], data)
            tensors[key] = made[place]
    return {key: tensors[key] for key in views}


def _tensor(view: _View, data: bytes) -> Tensor:
    """A view's own copy of its part of the storage `data`, laid out in order."""
    dtype = view.storage.dtype
    if len(data) != view.storage.count * dtype.itemsize:
        raise DamagedError(f"the storage {shorten(view.storage.key)!r} holds {len(data)} bytes, not {view.storage.count} values")
    if 0 in view.size:
        return torch.empty(view.size, dtype=dtype)
    return torch.frombuffer(bytearray(data[view.part()]), dtype=dtype).as_strided(view.size, view.stride).contiguous()
