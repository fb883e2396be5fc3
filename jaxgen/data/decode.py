"""Picture files to pictures: every format that Pillow reads, upright, whatever state their metadata is in.

Only missing or damaged pixel data make a file unreadable. Metadata that Pillow stumbles over are removed from a copy
in memory, and the picture is read from that.
"""

import io
import os
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from jaxgen.data.images import flatten
from jaxgen.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

PIXEL_LIMIT = 2**30 // 12  # 89 million, a quarter GiB of RGB: where Pillow too starts to suspect a decompression bomb

# Formats that Pillow identifies without reading them on its own, and EPS, for which it runs another program.
_EXCLUDED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})

_ORIENTATION = 0x0112  # the EXIF tag
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xae\x42\x60\x82"
_PNG_PIXEL_DATA = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
_JPEG, _JPEG_SCAN = b"\xff\xd8\xff", 0xDA
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def suffixes() -> frozenset[str]:
    """The file name endings of all formats that can be read, in lower case, with their dot."""
    from PIL import Image

    readable = {*_formats(), "MPO"}  # stereo JPEG, which Pillow registers apart and reads as JPEG
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in readable)


def _formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [kind for kind in Image.ID if kind not in _EXCLUDED]


def open_picture(path: Path) -> "Image.Image":
    """Read a picture, the first frame of an animation, as mode `L` or `RGB`, upright and on a white background.

    Raises:
        InputError: the file is not a picture, its pixel data are missing or damaged, or there are more than
            `PIXEL_LIMIT` pixels. The message names the file.
    """
    from PIL import UnidentifiedImageError

    try:
        if not os.path.isfile(path):  # a pipe would block, and a dead link is nothing
            raise ValueError("not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about odd but readable files do not name them
            return _read(path)
    except UnidentifiedImageError:
        raise InputError(f"{path} is damaged, or not a picture in a format that Pillow reads") from None
    except Exception as error:  # damaged files make decoders raise almost anything
        raise InputError(f"{path} cannot be read: {error}") from error


def _read(path: Path) -> "Image.Image":
    with path.open("rb") as file:
        start = file.read(len(_PNG))
    if start == _PNG:
        content = path.read_bytes()
        try:
            return _decode(io.BytesIO(_checked_png(content)))
        except Exception:
            return _decode(io.BytesIO(_checked_png(content, metadata=False)))
    try:
        return _decode(path)
    except Exception:
        if not start.startswith(_JPEG):
            raise
        return _decode(io.BytesIO(_bare_jpeg(path.read_bytes())))


def _decode(source: Path | io.BytesIO) -> "Image.Image":
    from PIL import Image

    with Image.open(source, formats=_formats()) as picture:
        if (pixels := picture.width * picture.height) > PIXEL_LIMIT:
            raise ValueError(f"{pixels} pixels are more than the limit of {PIXEL_LIMIT}")
        picture.load()
        return flatten(_upright(picture))


def _upright(picture: "Image.Image") -> "Image.Image":
    """Apply the EXIF orientation. `ImageOps.exif_transpose` does too, but fails where the other tags are damaged."""
    from PIL import Image

    turn = Image.Transpose
    turns = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE}
    turns |= {6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90}
    try:
        needed = turns.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # an EXIF block that cannot be read says nothing
        return picture
    return picture if needed is None else picture.transpose(needed)


def _checked_png(content: bytes, metadata: bool = True) -> bytes:
    """A PNG with an end marker and without metadata whose checksum is wrong; its pixel data are checked.

    Args:
        content: the file.
        metadata: keep text, colour profiles and the like where their checksums are right. Of metadata, the
            orientation is always kept.

    Raises:
        ValueError: a chunk of pixel data is damaged or cut short.
    """
    chunks, at = [_PNG], len(_PNG)
    while len(kind := content[at + 4 : at + 8]) == 4 and kind != b"IEND":
        length = int.from_bytes(content[at : at + 4], "big")
        chunk = content[at : at + length + 12]
        intact = len(chunk) == length + 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        pixel_data = kind in _PNG_PIXEL_DATA
        if pixel_data and not intact:
            raise ValueError(f"its {kind.decode('latin-1')} chunk is damaged or cut short")
        if intact and (pixel_data or metadata or kind == b"eXIf"):
            chunks.append(chunk)
        at += length + 12
    return b"".join([*chunks, _PNG_END])


def _bare_jpeg(content: bytes) -> bytes:
    """A JPEG without comments and application segments, except what its colours and orientation need."""
    parts, at = [content[:2]], 2
    while content[at : at + 1] == b"\xff" and len(content) > at + 3:
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == _JPEG_SCAN:
            break
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        segment = content[at:end]
        if segment[4:8] == b"JFIF":
            parts.append(_JFIF)
        elif segment[4:8] in (b"Exif", b"Adob") or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(segment)
        at = end
    return b"".join([*parts, content[at:]])
