"""Cartoon faces drawn by this module, so that there are faces to complete without any download.

A face is drawn from about a dozen parameters, with slightly irregular lines. The parameters are correlated, as in real
faces, so that the lower half can partly be predicted from the upper: brows and eyes predict the mouth, brows and hair
predict the beard, the hair predicts the shirt, and tilt and light affect the whole face.

Coordinates are those of a unit square, x to the right and y down. The centre of the head is at (0.5, 0.46); the eyes
are just above the middle row, and nose, cheeks, mouth and shirt below it.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxgen.data.images import Images, Target, check_memory, fit

if TYPE_CHECKING:
    from PIL import Image

_SIZE = (56, 56)
_COUNTS = {"train": 504, "test": 10}

_SEED = 1957
_CENTER = 0.5 + 0.46j  # of the head
_CANVAS = 224  # height and width while drawing; resizing to a quarter of that smooths the edges

Colour = tuple[int, int, int]
Points = NDArray[np.complex128]  # [n], x + iy: a rotation is a multiplication

_BACKGROUND, _INK, _WHITE, _MOUTH, _ROSE = (252, 250, 245), (52, 40, 40), (255, 255, 255), (120, 36, 44), (232, 96, 96)
_SKINS = ((253, 226, 200), (244, 200, 160), (218, 164, 118), (172, 118, 80), (124, 82, 58))
_HAIRS = ((48, 40, 46), (104, 66, 42), (182, 104, 48), (236, 196, 104), (206, 204, 208))
_SHIRTS = ((120, 180, 214), (220, 110, 92), (70, 120, 100), (96, 84, 150), (60, 66, 92))
_STYLES = ("bald", "short", "long", "bun", "curls", "beanie", "bob", "spikes")


class Face(NamedTuple):
    """The parameters of a face. Lengths are fractions of the canvas."""

    style: str
    skin: Colour
    hair: Colour
    shirt: Colour
    tilt: float  # radians
    light: float  # -1: from the left, 1: from the right
    width: float  # half the width of the head
    jaw: float  # width of the chin relative to the head
    mood: float  # -1: angry, 1: happy
    surprise: float  # 0 to 1: raised brows, wide eyes, open mouth
    brow: float  # heaviness of the brows, 0 to 1
    gap: float  # distance of an eye from the centre
    nose: float  # length of the nose
    beard: bool
    glasses: bool


def read(split: str, target: Target) -> Images:
    """504 faces to train on or 10 to test with, gray and 56×56 unless asked otherwise. They have no labels."""
    size, channels = target.size or _SIZE, target.channels or 1
    target = target._replace(size=size, channels=channels)
    people = list(_people(split))
    check_memory(len(people), *size, channels)
    images = [fit(_draw(face, rng), target) for face, rng in people]
    return Images(np.stack(images), np.zeros(len(images), np.int32))


def _people(split: str) -> Iterator[tuple[Face, np.random.Generator]]:
    """The parameters of each face of a split, and a random generator for the irregularities of its lines.

    There are 200 combinations of style, skin and hair. Ten are held out for testing: no training face has one of them.
    """
    looks = list(product(_STYLES, _SKINS, range(len(_HAIRS))))
    looks = [looks[i] for i in np.random.default_rng(_SEED).permutation(len(looks))]
    held_out = _COUNTS["test"]
    looks = looks[:held_out] if split == "test" else looks[held_out:]
    for number in range(_COUNTS[split]):
        rng = np.random.default_rng([_SEED, split == "test", number])
        style, skin, hair = looks[number % len(looks)]
        yield _person(style, skin, hair, rng), rng


def _person(style: str, skin: Colour, hair: int, rng: np.random.Generator) -> Face:
    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    brow, width = between(0, 1), between(0.24, 0.29)
    return Face(
        style=style,
        skin=skin,
        hair=_HAIRS[hair],
        shirt=_SHIRTS[hair],
        tilt=between(-0.16, 0.16),
        light=between(-1, 1),
        width=width,
        jaw=0.6 + 0.3 * brow + between(-0.04, 0.04),
        mood=between(-1, 1),
        surprise=max(0.0, between(-1, 1)),
        brow=brow,
        gap=0.42 * width + between(-0.006, 0.006),
        nose=0.05 + 0.04 * brow,
        beard=brow > 0.6 and style in ("bald", "short", "beanie", "spikes"),
        glasses=between(0, 1) < 0.15,
    )


def _draw(face: Face, rng: np.random.Generator) -> "Image.Image":
    pen = _Pen(rng, face.tilt)
    _hair_behind(pen, face)
    _body(pen, face)
    _head(pen, face)
    if face.beard:
        _beard(pen, face)
    _hair_in_front(pen, face)
    _brows_and_eyes(pen, face)
    _nose_and_cheeks(pen, face)
    _mouth(pen, face)
    return pen.picture


class _Pen:
    """Draws slightly irregular shapes on a canvas of its own, rotated by the tilt of the head."""

    def __init__(self, rng: np.random.Generator, tilt: float) -> None:
        from PIL import Image, ImageDraw

        self.picture = Image.new("RGB", (_CANVAS, _CANVAS), _BACKGROUND)
        self._draw = ImageDraw.Draw(self.picture)
        self._rng = rng
        self._rotation = np.exp(1j * tilt)

    def shape(self, points: Points, fill: Colour, line: float = 0.014) -> None:
        """Fill a closed outline. A smaller, irregular shape over one of ink leaves a line of varying width."""
        if line:
            self._polygon(points, _INK)
            center = points.mean()
            radii = points - center
            inset = line * (1 + self._wobble(len(points), 0.45)) / abs(radii).clip(line)
            points = center + radii * (1 - inset).clip(0)
        self._polygon(points, fill)

    def oval(self, x: float, y: float, across: float, down: float, fill: Colour, line: float = 0.014) -> None:
        center = x + 1j * y
        points = _arc(0, 0, across, down, 0, 2)
        self.shape(center + points * (1 + self._wobble(len(points), 0.05)), fill, line)

    def stroke(self, points: Points, width: float, colour: Colour = _INK) -> None:
        """Draw a brush stroke that is thinner at its ends."""
        along = np.gradient(points)
        weight = width / 2 * np.sin(np.linspace(0.15, 0.85, len(points)) * np.pi)
        across = 1j * along / abs(along).clip(1e-9) * weight
        self._polygon(np.concatenate([points + across, (points - across)[::-1]]), colour)

    def _polygon(self, points: Points, fill: Colour) -> None:
        neck = 0.5 + 0.85j
        turned = ((points - neck) * self._rotation + neck) * _CANVAS
        self._draw.polygon(turned.view(float).tolist(), fill)

    def _wobble(self, count: int, amplitude: float) -> NDArray[np.float64]:
        """Smooth noise around an outline of `count` points: a sum of sinusoids of two, three and four periods."""
        amplitudes = amplitude / 3 * self._rng.uniform(-1, 1, (3, 1))
        phases = self._rng.uniform(0, 2 * np.pi, (3, 1))
        noise: NDArray[np.float64] = (amplitudes * np.cos(_angles(count) + phases)).sum(axis=0)
        return noise


@lru_cache
def _angles(count: int) -> NDArray[np.float64]:
    angles: NDArray[np.float64] = np.linspace(0, 2 * np.pi, count, endpoint=False) * np.array([[2], [3], [4]])
    return angles


@lru_cache
def _unit_arc(start: float, stop: float) -> Points:
    arc: Points = np.exp(1j * np.pi * np.linspace(start, stop, round(24 * abs(stop - start))))
    return arc


def _arc(x: float, y: float, across: float, down: float, start: float, stop: float) -> Points:
    """Part of an ellipse's outline; angles are multiples of π: 0 is right, 0.5 below, 1 left, 1.5 above."""
    arc = _unit_arc(start, stop)
    return x + across * arc.real + 1j * (y + down * arc.imag)


def _curve(x: float, y: float, across: float, bend: float, slant: float = 0.0) -> Points:
    """A parabola of 13 points from left to right: its ends rise by `bend`, its right end falls by `slant`."""
    t = np.linspace(-1, 1, 13)
    return x + across * t + 1j * (y - bend * t**2 + slant * t)


def _blend(one: Colour, other: Colour, fraction: float) -> Colour:
    red, green, blue = (round(a + (b - a) * fraction) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _hair_behind(pen: _Pen, face: Face) -> None:
    shadow = _blend(face.hair, _INK, 0.25)
    width = face.width
    if face.style in ("long", "bob"):
        ends, bend = (0.82, 0.1) if face.style == "long" else (0.64, 0.06)
        crown = _arc(0.5, 0.44, width + 0.06, 0.36, 1, 2)
        pen.shape(np.concatenate([crown, _arc(0.5, ends, width + 0.08, bend, 0, 1)]), shadow)
    elif face.style == "bun":
        pen.oval(0.5, 0.1, 0.1, 0.085, face.hair)
    elif face.style == "curls":
        for curl in _arc(0.5, 0.42, width + 0.02, 0.29, 0.9, 2.1)[::3]:
            pen.oval(curl.real, curl.imag, 0.085, 0.085, face.hair)


def _body(pen: _Pen, face: Face) -> None:
    pen.oval(0.5, 1.06, 0.4, 0.24, face.shirt)
    pen.oval(0.5, 0.8, 0.085, 0.1, _blend(face.skin, _INK, 0.2))


def _outline(face: Face) -> Points:
    head = _arc(0, 0, face.width, 0.3, 0, 2)
    below = (head.imag / 0.3).clip(0) ** 2
    return _CENTER + head.real * (1 + (face.jaw - 0.6) * below) + 1j * head.imag


def _head(pen: _Pen, face: Face) -> None:
    if face.style not in ("long", "bob"):
        for side in (-1, 1):
            pen.oval(0.5 + side * face.width, 0.48, 0.05, 0.06, face.skin)
    pen.shape(_outline(face), _blend(face.skin, _INK, 0.22))
    lit = _outline(face) - _CENTER
    pen.shape(_CENTER + 0.022 * face.light - 0.005j + 0.87 * lit.real + 0.93j * lit.imag, face.skin, line=0)


def _beard(pen: _Pen, face: Face) -> None:
    jaw = _outline(face)
    jaw = jaw[jaw.imag > 0.5]
    pen.shape(np.concatenate([jaw, _arc(0.5, 0.5, 0.72 * face.width, 0.09, 1, 0)]), face.hair)


def _hair_in_front(pen: _Pen, face: Face) -> None:
    width, hair = face.width + 0.02, face.hair
    cap = _arc(0.5, 0.42, width, 0.29, 1, 2)
    if face.style in ("short", "long", "bun", "curls"):
        pen.shape(np.concatenate([cap, _curve(0.5, 0.27, -width, -0.12)]), hair)
    elif face.style == "bob":
        pen.shape(np.concatenate([cap, _curve(0.5, 0.32, -width, -0.04)]), hair)
    elif face.style == "spikes":
        spikes = _curve(0.5, 0.16, width, -0.16)
        spikes[1::2] -= 0.1j
        pen.shape(np.concatenate([spikes, _curve(0.5, 0.27, -width, -0.06)]), hair)
    elif face.style == "beanie":
        pen.oval(0.5, 0.09, 0.06, 0.055, _WHITE)
        pen.shape(np.concatenate([_arc(0.5, 0.3, width, 0.2, 1, 2), _curve(0.5, 0.3, -width, 0)]), face.shirt)
        band = [_curve(0.5, 0.26, width + 0.01, -0.02), _curve(0.5, 0.33, -width - 0.01, -0.02)]
        pen.shape(np.concatenate(band), _blend(face.shirt, _WHITE, 0.35))


def _brows_and_eyes(pen: _Pen, face: Face) -> None:
    height = 0.355 - 0.03 * face.surprise
    for side in (-1, 1):
        x = 0.5 + side * face.gap
        slant = side * 0.022 * face.mood
        brow = _curve(x, height, 0.06 + 0.012 * face.brow, -0.02 - 0.012 * face.surprise, slant)
        pen.stroke(brow, 0.024 + 0.03 * face.brow, _blend(face.hair, _INK, 0.35))
        if face.mood > 0.55 and face.surprise < 0.3:
            pen.stroke(_curve(x, 0.42, 0.05, -0.045), 0.026)  # laughing eyes are closed
            continue
        wide = 0.047 + 0.01 * face.surprise
        pen.oval(x, 0.43, wide, wide * (1.05 + 0.25 * face.surprise), _WHITE, line=0.01)
        pen.oval(x + 0.008 * face.light, 0.435, 0.022, 0.025, _INK, line=0)
        pen.oval(x + 0.008 + 0.01 * face.light, 0.425, 0.007, 0.007, _WHITE, line=0)
    if face.glasses:
        for side in (-1, 1):
            pen.stroke(_arc(0.5 + side * face.gap, 0.43, 0.085, 0.08, 0, 2.02), 0.018)
        pen.stroke(_curve(0.5, 0.42, face.gap - 0.08, 0), 0.02)


def _nose_and_cheeks(pen: _Pen, face: Face) -> None:
    warm = _blend(face.skin, _ROSE, 0.2 + 0.25 * abs(face.mood))
    for side in (-1, 1):
        pen.oval(0.5 + side * 1.45 * face.gap, 0.545, 0.045, 0.035, warm, line=0)
    shade = _blend(face.skin, _INK, 0.5)
    tip = 0.48 + face.nose
    pen.oval(0.5, tip, 0.035, 0.028, _blend(face.skin, _ROSE, 0.25), line=0)
    pen.stroke(_arc(0.5, tip, 0.036, 0.03, 0.0, 1.0), 0.02, shade)


def _mouth(pen: _Pen, face: Face) -> None:
    y, across = 0.645, 0.085 + 0.02 * face.mood
    if face.surprise > 0.4:
        pen.oval(0.5, y + 0.005, 0.03 + 0.025 * face.surprise, 0.02 + 0.04 * face.surprise, _MOUTH, line=0.01)
    elif face.mood > 0.55:
        grin = np.concatenate([_curve(0.5, y - 0.02, across, 0.01), _curve(0.5, y + 0.055, -across, 0.085)])
        pen.shape(grin, _MOUTH, line=0.01)
        pen.stroke(_curve(0.5, y - 0.01, 0.75 * across, 0.008), 0.024, _WHITE)
    else:
        pen.stroke(_curve(0.5, y + 0.02 * face.mood, across, 0.05 * face.mood), 0.024)
