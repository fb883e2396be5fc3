"""The pictures of a run, made small enough for a page."""

import base64
import functools
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxgen.report.folder import Run

__all__ = ["originals", "pictures"]

_MARGIN = 2  # pixels, as in `jaxgen.pictures.grid`
_ORIGINALS = ("originals", "original", "real_image", "reconstructed")  # pictures whose first row is of the data
_QUALITY = 80  # of lossy WebP


def originals(run: Run, count: int) -> list[str]:
    """Images of the data set, as data URIs: cut from a sheet that the run has drawn. None are fine too."""
    height, width = run.data.get("size") or (0, 0)
    folders = [run.folder / "final", *(path for _, path in run.drawn())]
    for name in _ORIGINALS:
        for folder in folders:
            raw = folder / "raw"
            for path in (raw / f"{name}.png", raw / f"{run.best_model}.{name}.png", folder / f"{name}.png"):
                if path.exists() and (found := _tiles(path, height, width)):
                    return [_uri(tile, "PNG", optimize=True) for tile in found[:count]]
    return []


def _tiles(path: Path, height: int, width: int) -> list[Image.Image]:
    """The images of the first row of a sheet; none where it is not made of images of this size."""
    with Image.open(path) as sheet:
        if not height or sheet.height % (height + _MARGIN) or sheet.width % (width + _MARGIN):
            return []
        lefts = range(0, sheet.width, width + _MARGIN)
        tiles = [sheet.crop((left, 0, left + width, height)) for left in lefts]
    return [tile for tile in tiles if np.asarray(tile).any()]  # the last row of a sheet is filled up with black


def pictures(run: Run, budget: int, skip: Collection[str] = ()) -> list[dict[str, Any]]:
    """The pictures of a run by name, each with as many epochs as the budget allows.

    Args:
        run: The run.
        budget: Characters, for all of them.
        skip: Names to leave out.

    Returns:
        For each name, its frames in order: the epoch (None for the end, where that is another picture) and the picture
        as a data URI; and how many frames there are in all.
    """
    found: dict[str, list[tuple[int | None, Path]]] = {}
    for epoch, folder in [*run.drawn(), (None, run.folder / "final")]:
        for path in sorted(folder.glob("*.png")):
            if path.stem not in skip:
                found.setdefault(path.stem, []).append((epoch, path))
    for files in found.values():  # the last epoch's picture is also that of the end
        if len(files) > 1 and files[-1][1].read_bytes() == files[-2][1].read_bytes():
            del files[-1]
    result, left = [], budget
    for place, (name, files) in enumerate(sorted(found.items(), key=lambda item: len(item[1]))):
        share = left // (len(found) - place)
        frames = _that_fit(files, share)
        raw = [(epoch, path.parent / "raw" / path.name) for epoch, path in files]
        if len(frames) < len(files) and all(path.exists() for _, path in raw):
            frames = max(frames, _that_fit(raw, share), key=len)  # without labels, so there is room for more of them
        left -= _length(frames)
        if frames:
            result.append({"name": name, "frames": frames, "total": len(files)})
    return sorted(result, key=lambda picture: (-len(picture["frames"]), picture["name"]))


def _that_fit(files: Sequence[tuple[int | None, Path]], budget: int) -> list[dict[str, Any]]:
    """As many frames as the budget allows, evenly spaced with the last one among them; a smaller one if none fits."""
    part = next((part for part in (1, 2, 4, 8) if len(_encoded(files[-1][1], part)) <= budget), None)
    if part is None:
        return []
    count = min(len(files), max(1, budget // len(_encoded(files[-1][1], part))))
    while True:
        chosen = sorted({round(place) for place in np.linspace(len(files) - 1, 0, count)}) if count > 1 else [-1]
        frames: list[dict[str, Any]] = [
            {"epoch": files[place][0], "source": _encoded(files[place][1], part)} for place in chosen
        ]
        size = _length(frames)
        if size <= budget or count == 1:
            return frames
        count = max(1, min(count - 1, count * budget // size))


def _length(frames: Sequence[dict[str, Any]]) -> int:
    return sum(len(frame["source"]) for frame in frames)


def _encoded(path: Path, part: int) -> str:
    return _encoded_once(path, part, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1024)  # while a run is in training, its page is written again and again
def _encoded_once(path: Path, part: int, changed: int) -> str:
    """A picture, reduced to 1/part of its width and height, as the smaller one of a lossless and a lossy WebP."""
    with Image.open(path) as image:
        plain = image.convert("RGB")
    if part > 1:
        plain = plain.resize((max(1, plain.width // part), max(1, plain.height // part)), Image.Resampling.BOX)
    lossless = _uri(plain, "WEBP", lossless=True, method=2)
    lossy = _uri(plain, "WEBP", quality=_QUALITY, method=2) if len(lossless) > 8000 else lossless
    return min(lossless, lossy, key=len)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
