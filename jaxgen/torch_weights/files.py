"""Weights files: `.safetensors` and what `torch.save` writes. The content decides which it is, not the file's name.

Nothing that a file holds is executed, and no more memory is taken than the file has bytes: tensors of `.safetensors`
are views of the file, and those of PyTorch are converted only after names and shapes are known to be the model's.
"""

import json
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgen.errors import InputError

Tensors = Mapping[str, Any]  # arrays of NumPy or JAX, tensors of PyTorch

REWRITE = "in PyTorch write it again with torch.save(model.state_dict(), path)"
METADATA = "__metadata__"
ABOUT = "jaxgen"  # the key of our part of the metadata
LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it

DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32,
    "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
    "BF16": jnp.bfloat16, "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2, "F8_E8M0": jnp.float8_e8m0fnu,
    "C64": np.complex64,
}  # fmt: skip

# What often lies beside the weights in a checkpoint of PyTorch, of types that its safe unpickler does not know.
IGNORED_TYPES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype", "numpy.ndarray", "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
)  # fmt: skip


class Unsupported(NamedTuple):
    """A tensor in a `.safetensors` file whose type has no counterpart in NumPy."""

    shape: tuple[int, ...]
    dtype: str


class _Ignored:
    """Stands in for an object beside the weights. Whatever the file says of it is dropped."""

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def to_safetensors(tensors: Mapping[str, np.ndarray], about: Mapping[str, Any] | None = None) -> bytes:
    """Encode named tensors as a `.safetensors` file. Equal arguments give equal bytes.

    Args:
        tensors: arrays under PyTorch's names and in PyTorch's layouts, as `state_dict` gives them.
        about: what else the header is to say, JSON-able; `read_header` returns it.
    """
    from safetensors.numpy import save

    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    metadata = {"format": "pt"}
    if about:
        metadata[ABOUT] = json.dumps(about, sort_keys=True)
    encoded = save(contiguous, metadata)
    start = 8 + int.from_bytes(encoded[:8], "little")
    # The library writes the metadata in an order that differs from process to process.
    header = json.dumps(json.loads(encoded[8:start]) | {METADATA: metadata}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + encoded[start:]


def read_header(path: str | Path) -> dict[str, Any] | None:
    """Read what the header of a weights file says about it, without its tensors.

    Args:
        path: a weights file of any kind.

    Returns:
        The `about` that `to_safetensors` was given; None where the file has none, as every file of PyTorch.

    Raises:
        InputError: the file does not exist, is no weights file, or its header cannot be read.
    """
    path = Path(path)
    return _about(_safetensors_header(path), path) if _is_safetensors(path) else None


def read(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Read a weights file.

    Returns:
        The state_dicts in the file, by their place in it, and what `read_header` gives (empty where it gives None).

    Raises:
        InputError: the file does not exist or cannot be read.
    """
    if _is_safetensors(path):
        header = _safetensors_header(path)
        return {"": _safetensors(path, header)}, _about(header, path) or {}
    found = state_dicts(_torch_load(path))
    if not found:
        raise InputError(f"{path}: holds no state_dict; {REWRITE}")
    return found, {}


def state_dicts(content: Any) -> dict[str, Tensors]:
    """Find the mappings of names to tensors in nested mappings, lists and tuples, by their place such as `['model']`.

    What lies beside tensors in such a mapping is left out.
    """
    return dict(_state_dicts(content))


def _state_dicts(content: Any) -> Iterator[tuple[str, Tensors]]:
    stack, seen = [("", content)], set()  # a file may nest deeply, or hold an object in many places
    while stack:
        place, value = stack.pop()
        if id(value) in seen or not isinstance(value, Mapping | list | tuple):
            continue
        seen.add(id(value))
        items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
        if isinstance(value, Mapping):
            tensors = {name: tensor for name, tensor in items if isinstance(name, str) and _is_tensor(tensor)}
            if tensors:
                yield place, tensors
        stack.extend((f"{place}[{key!r:.40}]", child) for key, child in reversed(items))


def _is_tensor(value: Any) -> bool:
    # A nested tensor of PyTorch's has no shape; a storage has none either.
    return not getattr(value, "is_nested", False) and hasattr(value, "shape") and hasattr(value, "dtype")


def to_numpy(tensor: Any) -> np.ndarray:
    """Convert a tensor of any library, exactly.

    Raises:
        ValueError: it has no values, or not such as NumPy can hold; the message continues the tensor's name.
    """
    torch = sys.modules.get("torch")
    if torch and isinstance(tensor, torch.Tensor):
        return _torch_to_numpy(tensor)
    array = None if isinstance(tensor, Unsupported) else np.asarray(tensor)
    if array is None or not (array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number)):
        raise ValueError(f"has the type {tensor.dtype}, which cannot be converted")
    return array


def _torch_to_numpy(tensor: Any) -> np.ndarray:
    if tensor.is_meta:
        raise ValueError("is on PyTorch's meta device, so it has no values")
    try:
        tensor = tensor.detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        # NumPy has neither sparse tensors, lazily conjugated or negated ones, bfloat16 nor float8.
        tensor = tensor.to_dense().resolve_conj().resolve_neg().cpu()
        wide = tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
        return np.asarray(wide.numpy())
    except (RuntimeError, TypeError) as error:  # of a type that PyTorch itself can only store
        raise ValueError(f"has the type {tensor.dtype}, which cannot be converted") from error


def _is_safetensors(path: Path) -> bool:
    """Tell a `.safetensors` file from one of PyTorch's, by its first bytes."""
    if not path.exists():
        raise InputError(f"{path}: no such file; give a .safetensors or .pth file")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give a .safetensors or .pth file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
        return True
    if start.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a pickle as PyTorch wrote before 1.6
        return False
    raise InputError(f"{path}: not a readable .safetensors file, and not a plain state_dict of PyTorch's; {REWRITE}")


def _safetensors_header(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks the header: all tensors lie in the file, one after the other
            pass
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return dict(header)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable .safetensors file ({error})") from error


def _about(header: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    text = header.get(METADATA, {}).get(ABOUT)
    if text is None:
        return None
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable .safetensors file (its metadata are damaged: {error})") from error
    if not isinstance(about, dict):
        raise InputError(f"{path}: not a readable .safetensors file (its metadata are damaged)")
    return about


def _safetensors(path: Path, header: Mapping[str, Any]) -> Tensors:
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    tensors: dict[str, Any] = {}
    for name, entry in header.items():
        if name == METADATA:
            continue
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if dtype := DTYPES.get(entry["dtype"]):
            tensors[name] = content[start + begin : start + end].view(dtype).reshape(shape)
        else:
            tensors[name] = Unsupported(shape, entry["dtype"])
    return tensors


def _torch_load(path: Path) -> Any:
    """Load a file of `torch.save` with `weights_only=True`, so that nothing in it is executed."""
    if zipfile.is_zipfile(path):
        _check_archive(path)
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading .pth needs PyTorch; install torch, or save it there as .safetensors"
        ) from error
    try:
        with (
            path.open("rb") as file,  # given a path, PyTorch would go by the suffix
            warnings.catch_warnings(),  # PyTorch's remarks on what is odd in a damaged file
            torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED_TYPES]),
        ):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind, where a file is damaged
        raise InputError(f"{path}: not a plain state_dict; {REWRITE}") from error


def _check_archive(path: Path) -> None:
    """Refuse an archive whose entries unpack to more than the file's size: PyTorch would take memory for them."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # of any kind, where a file is damaged
        raise InputError(f"{path}: not a plain state_dict ({error}); {REWRITE}") from error
    if claimed > path.stat().st_size:
        raise InputError(f"{path}: its entries claim {claimed:,} bytes, more than the whole file has; {REWRITE}")
