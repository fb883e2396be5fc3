"""Text in pictures: drawn literally, in a font that has the characters, and shortened to fit."""

import importlib.util
import math
from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from jaxgen.pictures.matplotlib_setup import import_matplotlib, matplotlib_defaults

__all__ = ["BACKGROUND", "draw_text", "families", "literal", "shortened", "text_band", "text_width", "wrapped"]

BACKGROUND = "#ececea"  # light, and not as light as a white image
INK = "#222222"

_MOST_CHARACTERS = 300
_NOT_A_CHARACTER = "\uffff"  # fonts draw this, and all that they lack, as the same box

_Font = ImageFont.FreeTypeFont


def literal(text: str) -> str:
    """Text on one line, its white space collapsed. What cannot be drawn is written as an escape such as `\\u65e5`."""
    line = " ".join(text.split())[:_MOST_CHARACTERS]
    return "".join(
        character
        if character.isprintable() and _font_file(character) is not None
        else character.encode("unicode_escape").decode()
        for character in line
    )


def text_width(text: str, size: int) -> int:
    """The width in pixels of a text that is `size` pixels high."""
    return math.ceil(sum(font.getlength(piece) for font, piece in _pieces(text, size)))


def shortened(text: str, size: int, width: float) -> str:
    """The text with an ellipsis for its end, if it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1].rstrip()
    return text + "…"


def wrapped(text: str, size: int, width: int, lines: int = 2) -> list[str]:
    """The text in at most `lines` lines of at most `width` pixels; the last one is shortened."""
    words, done = text.split(" "), list[str]()
    while words and len(done) < lines - 1:
        count = len(words)
        while count > 1 and text_width(" ".join(words[:count]), size) > width:
            count -= 1
        done.append(shortened(" ".join(words[:count]), size, width))
        words = words[count:]
    return [*done, shortened(" ".join(words), size, width)] if words else done


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, anchor: str = "l") -> None:
    """Draw a text.

    Args:
        draw: where to.
        place: x and the y of the baseline, in pixels.
        text: a line that `literal` returned.
        size: its height in pixels.
        anchor: whether x is the text's left end ("l"), its middle ("m") or its right end ("r").
    """
    x, baseline = place
    x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor] * text_width(text, size)
    for font, piece in _pieces(text, size):
        draw.text((x, baseline), piece, fill=INK, font=font, anchor="ls")
        x += font.getlength(piece)


def text_band(text: str, size: int, mode: str) -> Image.Image:
    """A picture of one line. Its height depends on the size alone."""
    band = Image.new(mode, (max(1, text_width(text, size)), round(1.3 * size)), BACKGROUND)
    draw_text(ImageDraw.Draw(band), (0, size), text, size)
    return band


def families(texts: Iterable[str]) -> list[str]:
    """The fonts, by Matplotlib's names, that have the characters that its own font lacks."""
    files = {_font_file(character) for text in texts for character in text} - {None, _own_font()}
    return [name for file, name in _system_fonts() if file in files] if files else []


def _pieces(text: str, size: int) -> list[tuple[_Font, str]]:
    """The text in pieces of one font each."""
    by_file = groupby(text, key=lambda character: _font_file(character) or _own_font())
    return [(_font(file, size), "".join(piece)) for file, piece in by_file]


@cache
def _font_file(character: str) -> str | None:
    """The file of the first font that has the character."""
    if _has(_own_font(), character):
        return _own_font()
    return next((file for file, _ in _system_fonts() if _has(file, character)), None)


def _has(file: str, character: str) -> bool:
    try:
        font = _font(file, 20)
        return bytes(font.getmask(character)) != bytes(font.getmask(_NOT_A_CHARACTER))
    except (OSError, UnicodeError):  # a font of bitmaps in other sizes, a broken file, half of a surrogate pair
        return False


@cache
def _font(file: str, size: int) -> _Font:
    return ImageFont.truetype(file, size)


@cache
def _own_font() -> str:
    """DejaVu Sans, which comes with Matplotlib; its path is found without importing Matplotlib, which is slow."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    if not path.exists():  # distributions keep Matplotlib's data elsewhere
        path = Path(import_matplotlib().get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return str(path)


@cache
def _system_fonts() -> list[tuple[str, str]]:
    """File and name of the upright fonts of the system, as Matplotlib finds them, in a fixed order."""
    with matplotlib_defaults():
        from matplotlib.font_manager import fontManager

        own = str(Path(_own_font()).parent)  # symbols under other characters' numbers, and boxes for all characters
        return sorted(
            (font.fname, font.name)
            for font in fontManager.ttflist
            if font.style == "normal" and font.weight in (400, "normal", "regular") and not font.fname.startswith(own)
        )
