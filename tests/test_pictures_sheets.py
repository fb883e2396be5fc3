"""Sheets: exact pixels of enlarged images, labels, and text of any kind."""

import io
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxgen import pictures
from jaxgen.pictures import text

Sheet = Callable[..., Image.Image]


def colours(count: int, height: int = 4, width: int = 5) -> np.ndarray:
    """Images of one colour each, which nothing else in a sheet has."""
    levels = np.stack([np.array([200, 10 + number, 40]) for number in range(count)])
    return np.broadcast_to(levels[:, None, None], (count, height, width, 3)) / 255


def boxes(sheet: Image.Image, count: int) -> list[tuple[int, int, int, int]]:
    """Where the images of `colours` are: left, top, width and height, each entirely of its colour."""
    red, green, blue = np.asarray(sheet.convert("RGB")).transpose(2, 0, 1)
    shown, found = np.where((red == 200) & (blue == 40), green.astype(np.int16) - 10, -1), []
    for number in range(count):
        rows, columns = np.nonzero(shown == number)
        assert len(rows), f"image {number} is not in the sheet"
        top, left = rows.min(), columns.min()
        height, width = rows.max() + 1 - top, columns.max() + 1 - left
        assert len(rows) == height * width, f"something covers image {number}"
        found.append((int(left), int(top), int(width), int(height)))
    return found


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=shape)


def test_a_sheet_places_images_row_by_row() -> None:
    (a, b, c, d, e) = boxes(pictures.sheet(colours(5), 3), 5)
    assert a[0] < b[0] < c[0]
    assert (a[1], d[1]) == (b[1], e[1])
    assert (a[0], b[0]) == (d[0], e[0])
    assert d[1] > a[1] + a[3]


@pytest.mark.parametrize(
    ("count", "columns", "height", "width"),
    [(1, 1, 28, 28), (196, 16, 8, 8), (64, 8, 28, 28), (20, 10, 32, 30), (30, 10, 56, 56)],
)
def test_images_are_enlarged_by_a_whole_factor_to_a_readable_size(
    count: int, columns: int, height: int, width: int
) -> None:
    sheet = pictures.sheet(colours(count, height, width), columns, title="a title")
    ((shown_width, shown_height),) = {box[2:] for box in boxes(sheet, count)}
    factor = shown_width // width
    assert (shown_width, shown_height) == (factor * width, factor * height)
    assert factor > 1
    assert 700 <= sheet.width <= 1300
    assert sheet.height <= 1000


def test_images_that_are_large_stay_as_they_are() -> None:
    assert boxes(pictures.sheet(colours(3, 600, 700), 3), 3)[0][2:] == (700, 600)


@pytest.mark.parametrize("options", [{}, {"title": "t", "row_labels": ["a", "b"], "column_labels": ["x", "y", "z"]}])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_of_every_image_is_in_the_sheet(options: dict[str, Any], channels: int) -> None:
    """The place of an image is found by its neighbours' first column; what is there is the image, enlarged."""
    images = noise(6, 7, 9, channels)
    flat = pictures.sheet(colours(6, 7, 9), 3, **options)
    sheet = np.asarray(pictures.sheet(images, 3, **options).convert("RGB"))
    for image, (left, top, width, height) in zip(images, boxes(flat, 6), strict=True):
        factor = width // 9
        wanted = np.asarray(pictures.to_image(image).convert("RGB")).repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_array_equal(sheet[top : top + height, left : left + width], wanted)


def test_gray_images_make_a_gray_sheet() -> None:
    assert pictures.sheet(noise(2, 4, 4, 1), 2).mode == "L"
    assert pictures.sheet(noise(2, 4, 4, 1), 2, cut=1).mode == "RGB"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pictures.sheet(np.zeros((6, 8, 8, 1)), 3, title="a title", row_labels="ab", column_labels="xyz"),
        lambda: pictures.sheet(np.zeros((1, 300, 20, 1)), 1, title="a title that is wider than its image"),
        lambda: pictures.compared({"original": np.zeros((6, 8, 8, 3)), "copy": np.ones((6, 8, 8, 3))}, 6, cut=3),
        lambda: pictures.plane(np.zeros((9, 8, 8, 1)), 3, 3.0, title="a title"),
        lambda: pictures.plane(np.zeros((9, 8, 8, 1)), 9, 2.0),
        lambda: pictures.strips({"a": pictures.to_image(np.zeros((4, 40)))}, "a title"),
        lambda: pictures.beside({"a": pictures.to_image(np.zeros((400, 400)))}, "a title"),
        lambda: pictures.captioned(pictures.to_image(np.zeros((80, 80))), "epoch 3"),
        lambda: pictures.curves({"loss": [1.0, 2.0]}, ["loss"], "nats", title="a title"),
        lambda: pictures.scatter(noise(9, 2), np.arange(9), title="a title"),
    ],
)
def test_there_is_a_light_margin_all_round(draw: Sheet) -> None:
    pixels = np.asarray(draw().convert("L"))
    for edge in (pixels[:16], pixels[-16:], pixels[:, :16], pixels[:, -16:]):
        assert edge.min() == edge.max() > 220


@pytest.mark.parametrize("option", ["title", "row_labels", "column_labels"])
def test_each_text_is_drawn(option: str) -> None:
    values = {"title": "a title", "row_labels": ["a", "b"], "column_labels": [1, 2, 3]}
    others = {name: value for name, value in values.items() if name != option}
    other = {"title": "another", "row_labels": ["a", "c"], "column_labels": [1, 2, 4]}[option]
    drawn = {
        pictures.sheet(colours(6), 3, **options).tobytes()  # type: ignore[arg-type]
        for options in (others, {**others, option: values[option]}, {**others, option: other})
    }
    assert len(drawn) == 3


def test_short_row_labels_stand_left_and_long_ones_above() -> None:
    plain, short, long = (
        boxes(pictures.sheet(colours(4), 2, row_labels=labels), 4)
        for labels in ([], ["a", "b"], ["the originals, from the test split", "b"])
    )
    assert short[0][0] > plain[0][0] == long[0][0]
    assert long[0][1] > plain[0][1] == short[0][1]


def test_numbers_of_labels_are_checked() -> None:
    with pytest.raises(ValueError, match="3 labels for 2 rows"):
        pictures.sheet(colours(4), 2, row_labels="abc")
    with pytest.raises(ValueError, match="1 labels for 2 columns"):
        pictures.sheet(colours(4), 2, column_labels="a")
    with pytest.raises(ValueError, match="at least one image"):
        pictures.sheet(np.zeros((0, 8, 8, 1)), 2)


def test_fewer_images_than_columns_make_a_shorter_row() -> None:
    few = pictures.sheet(colours(2), 16, column_labels="ab")
    assert boxes(few, 2) == boxes(pictures.sheet(colours(2), 2, column_labels="ab"), 2)


def test_compared_sets_alternate() -> None:
    images = colours(10)
    sheet = pictures.compared({"original": images[:5], "reconstruction": images[5:]}, 3)
    found = boxes(sheet, 10)
    tops = [top for _, top, _, _ in found]
    assert tops[0] == tops[1] == tops[2] < tops[5] == tops[6] == tops[7] < tops[3] == tops[4] < tops[8] == tops[9]
    for first, second in zip(found[:5], found[5:], strict=True):
        assert first[0] == second[0]


def test_the_cut_is_a_line_between_two_rows_of_pixels() -> None:
    halves = np.concatenate([colours(1, 2), colours(2, 4)[1:]], 1)  # [1, 6, 5, 3]: two rows of one, four of another
    upper, lower = boxes(pictures.sheet(halves, 1, cut=2), 2)
    factor = upper[2] // 5
    assert (upper[3], lower[3]) == (2 * factor, 4 * factor)  # no pixel is hidden
    gap = lower[1] - upper[1] - upper[3]
    assert 2 <= gap <= 4
    line = np.asarray(pictures.sheet(halves, 1, cut=2))[lower[1] - gap : lower[1], upper[0] : upper[0] + upper[2]]
    assert len(np.unique(line.reshape(-1, 3), axis=0)) == 1
    assert tuple(line[0, 0]) not in {(200, 10, 40), (200, 11, 40)}


# --- The latent plane -------------------------------------------------------------------------------------------------


def test_a_plane_has_no_gaps_and_axes_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[tuple[float, float]]] = {}

    def record(_: Any, place: tuple[float, float], line: str, *__: Any) -> None:
        drawn.setdefault(line, []).append(place)

    monkeypatch.setattr("jaxgen.pictures.sheets.draw_text", record)
    found = boxes(pictures.plane(colours(9, 8, 8), 3, 3.0), 9)
    assert found[1][0] == found[0][0] + found[0][2]
    assert found[3][1] == found[0][1] + found[0][3]
    assert drawn.keys() == {"−3", "−2", "−1", "0", "1", "2", "3", "z₁", "z₂"}
    columns, side = {line: places[0][0] for line, places in drawn.items()}, found[0][2]
    assert columns["3"] - columns["−3"] == pytest.approx(2 * side)  # the centres of the outermost images
    assert columns["0"] - columns["−3"] == pytest.approx(side)
    heights = {line: places[1][1] for line, places in drawn.items() if len(places) > 1}
    assert heights["−3"] - heights["3"] == pytest.approx(2 * side)  # upwards


@pytest.mark.parametrize(
    ("extent", "numbers"), [(1.0, {"−1", "−0.5", "0", "0.5", "1"}), (6.0, {"−6", "−4", "−2", "0", "2", "4", "6"})]
)
def test_a_line_of_images_has_one_axis(extent: float, numbers: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr("jaxgen.pictures.sheets.draw_text", lambda _, place, line, *__: drawn.append(line))
    pictures.plane(colours(7), 7, extent)
    assert sorted(drawn) == sorted([*numbers, "z₁"])


# --- Compositions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "width", "rows"), [(1, 900, 1), (2, 900, 1), (3, 900, 2), (4, 900, 2), (3, 500, 1), (4, 500, 2)]
)
def test_models_stand_side_by_side(count: int, width: int, rows: int) -> None:
    named = {f"seed {number}": pictures.to_image(image) for number, image in enumerate(colours(count, 300, width))}
    found = boxes(pictures.beside(named, "a title"), count)
    assert {box[2:] for box in found} == {(width, 300)}
    assert len({top for _, top, _, _ in found}) == rows
    assert len({left for left, _, _, _ in found}) == -(-count // rows)
    assert len(set(found)) == count


def test_strips_stand_one_above_the_other() -> None:
    named = {name: pictures.to_image(image) for name, image in zip("abc", colours(3, 10, 100), strict=True)}
    found = boxes(pictures.strips(named, "epoch 3"), 3)
    assert len({left for left, _, _, _ in found}) == 1
    assert [top for _, top, _, _ in found] == sorted(top for _, top, _, _ in found)
    assert {(width % 100, height % 10) for _, _, width, height in found} == {(0, 0)}
    assert pictures.strips(named, "epoch 3") != pictures.strips(named, "epoch 4")


def test_captioned_frames_have_one_size_and_show_their_caption() -> None:
    frame = pictures.to_image(noise(80, 80))
    frames = [pictures.captioned(frame, caption) for caption in ("epoch 1", "epoch 200", "a very long caption" * 9, "")]
    assert len({(image.size, image.mode) for image in frames}) == 1
    assert len({image.tobytes() for image in frames}) == 4
    assert frames[0].height > frames[0].width > 320
    with Image.open(io.BytesIO(pictures.gif(frames))) as animation:
        assert animation.size == frames[0].size  # large enough as they are


# --- Text -------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "",
    " ",
    "a\nb\tc",
    "$x$",
    r"$\frac$",
    "\x00\x1b[31m",
    "\u202eabc",
    "\udcff",
    "z₁ − z₂ → ½",
    "é" * 500,
    "<b>&amp;</b>",
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:10]))
def test_any_text_can_be_drawn(name: str) -> None:
    sheet = pictures.sheet(noise(4, 8, 8, 1), 2, title=name, row_labels=[name, name], column_labels=[name, name])
    assert sheet.width <= 1400
    pictures.beside({name: sheet}, name)
    pictures.captioned(sheet, name)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a\n b\tc ", "a b c"),
        ("\x00\x1b", r"\x00\x1b"),
        ("\u202eabc", r"\u202eabc"),
        ("\udcff", r"\udcff"),
        ("$z₁ − z₂ → ½$ жΩß", "$z₁ − z₂ → ½$ жΩß"),
    ],
)
def test_what_cannot_be_drawn_is_escaped(name: str, wanted: str) -> None:
    assert text.literal(name) == wanted


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, list[tuple[str, str]]], None]]:
    """Replaces the own font and those of the system."""

    def replace(own: str, others: list[tuple[str, str]]) -> None:
        monkeypatch.setattr(text, "_own_font", lambda: own)
        monkeypatch.setattr(text, "_system_fonts", lambda: others)
        text._font_file.cache_clear()

    yield replace
    text._font_file.cache_clear()


def test_a_character_that_no_font_has_is_escaped(fonts: Callable[..., None]) -> None:
    fonts(text._own_font(), [(os.devnull, "no font")])
    assert text.literal("a日本") == r"a\u65e5\u672c"


def test_a_character_that_another_font_has_is_drawn_in_that(fonts: Callable[..., None]) -> None:
    sans = text._own_font()
    mono = sans.replace("DejaVuSans", "DejaVuSansMono")  # without Hebrew
    wanted = text.text_band("א", 20, "L")
    fonts(mono, [(os.devnull, "no font"), (sans, "DejaVu Sans")])
    assert text.literal("aא") == "aא"
    assert text.families(["a", "aא"]) == ["DejaVu Sans"]
    assert text.families(["a"]) == []
    assert text.text_band("א", 20, "L") == wanted
    assert text.text_width("aא", 20) == pytest.approx(text.text_width("a", 20) + text.text_width("א", 20), abs=1)


def test_long_text_is_shortened_to_its_width() -> None:
    for width in (40, 100, 333):
        line = text.shortened("one two three four five six seven eight", 20, width)
        assert line.endswith("…")
        assert width - 40 < text.text_width(line, 20) <= width
    assert text.shortened("short", 20, 333) == "short"


def test_titles_are_wrapped_into_two_lines() -> None:
    assert text.wrapped("one two three four", 20, 10_000) == ["one two three four"]
    first, second = text.wrapped("one two three four five", 20, 160)
    assert first.startswith("one two")
    assert f"{first} {second}" == "one two three four five"
    assert len(text.wrapped("word " * 50, 20, 160)) == 2


# --- Speed ------------------------------------------------------------------------------------------------------------


def test_a_sheet_is_drawn_quickly() -> None:
    """So that it can be drawn after every epoch."""
    images = noise(256, 8, 8, 1)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        pictures.sheet(images, 16, title="dcgan_digits, digits, epoch 3")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05
