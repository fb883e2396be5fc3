"""Grids, animations and plots: what they show, and that nothing in the user's environment changes or breaks them."""

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from jaxgen import pictures
from jaxgen.pictures import plots

pytestmark = pytest.mark.unoptimized


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Matplotlib figures that have been drawn."""
    drawn: list[Any] = []
    render = plots._render

    def record(figure: Any) -> Image.Image:
        drawn.append(figure)
        return render(figure)

    monkeypatch.setattr(plots, "_render", record)
    return drawn


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3)])
def test_to_image_clips_and_rounds(shape: tuple[int, ...]) -> None:
    values = np.resize(np.array([-1, 0, 0.5, 1, 2, np.nan]), shape)
    levels = np.asarray(pictures.to_image(values))
    np.testing.assert_array_equal(levels, np.resize([0, 0, 128, 255, 255, 0], shape).reshape(levels.shape))
    assert pictures.to_image(values).mode == ("RGB" if shape[2:] == (3,) else "L")


def test_png_is_lossless() -> None:
    image = pictures.to_image(np.random.default_rng(0).uniform(size=(5, 4, 3)))
    assert Image.open(io.BytesIO(pictures.png(image))).tobytes() == image.tobytes()


def test_grid_places_images_row_by_row_with_a_margin() -> None:
    images = np.linspace(0.2, 1, 5)[:, None, None, None] * np.ones((5, 2, 3, 1))
    sheet = np.asarray(pictures.grid(images, columns=3, margin=1))
    assert sheet.shape == (2 * (2 + 1), 3 * (3 + 1))
    wanted = np.zeros((6, 12), np.uint8)
    for number, level in enumerate(np.round(np.linspace(0.2, 1, 5) * 255)):
        row, column = divmod(number, 3)
        wanted[3 * row : 3 * row + 2, 4 * column : 4 * column + 3] = level
    np.testing.assert_array_equal(sheet, wanted)


def test_grid_of_256_small_images_is_160_by_160() -> None:
    assert pictures.grid(np.zeros((256, 8, 8, 1)), columns=16).size == (160, 160)


def test_over_puts_the_first_row_on_top() -> None:
    sheet = np.asarray(pictures.over(np.zeros((3, 2, 2, 1)), np.ones((3, 2, 2, 1)), margin=0))
    np.testing.assert_array_equal(sheet, np.repeat([[0], [255]], 2, axis=0) * np.ones((1, 6)))


def test_gif_repeats_its_enlarged_frames() -> None:
    frames = [pictures.to_image(np.full((2, 3), level)) for level in (0, 0.5, 1)]
    with Image.open(io.BytesIO(pictures.gif(frames, frames_a_second=10, scale=5))) as animation:
        assert (animation.size, animation.n_frames) == ((15, 10), 3)
        assert (animation.info["duration"], animation.info["loop"]) == (100, 0)
        for number, level in enumerate((0, 128, 255)):
            animation.seek(number)
            assert abs(np.asarray(animation.convert("L")).astype(int) - level).max() <= 1


def test_curves_count_epochs_from_one(figures: list[Any]) -> None:
    history = {"loss_a": [3.0, 2.0, 1.0], "loss_b": [1.0, 1.0, 1.0], "other": [0.0]}
    pictures.curves(history, ["loss_a", "loss_b"], "nats", title="an experiment")
    (axes,) = figures[0].axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2, 3]] * 2
    assert [list(line.get_ydata()) for line in axes.lines] == [[3, 2, 1], [1, 1, 1]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["loss a", "loss b"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("epoch", "nats", "linear")
    assert figures[0].get_suptitle() == "an experiment"


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 200])
def test_the_axis_of_epochs_has_whole_numbers(epochs: int, figures: list[Any]) -> None:
    pictures.curves({"loss": np.arange(epochs)}, ["loss"], "nats")
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) for tick in ticks)
    texts = [text.get_text() for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
    assert texts == [f"{tick:.0f}" for tick in ticks]


@pytest.mark.parametrize("epochs", [1, 4])
def test_curves_of_several_models_are_a_mean_with_a_band(epochs: int, figures: list[Any]) -> None:
    values = np.random.default_rng(0).normal(size=(5, epochs))
    pictures.curves({"loss": values}, ["loss"], "nats")
    (axes,) = figures[0].axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), values.mean(0))
    assert axes.get_legend().get_texts()[0].get_text() == "loss: mean ± s.d. of 5"
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(band.max(), (values.mean(0) + values.std(0, ddof=1)).max())
    np.testing.assert_allclose(band.min(), (values.mean(0) - values.std(0, ddof=1)).min())


def test_curves_of_one_model_have_no_band(figures: list[Any]) -> None:
    pictures.curves({"loss": [[3.0, 2.0, 1.0]]}, ["loss"], "nats")
    (axes,) = figures[0].axes
    assert list(axes.lines[0].get_ydata()) == [3, 2, 1]
    assert not axes.collections


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.inf, 1.0], [0.0, 0.0], [[1.0, np.nan], [0.5, 0.1]]], ids=str)
def test_curves_are_drawn_whatever_the_values(values: list[Any], scale: str, figures: list[Any]) -> None:
    assert pictures.curves({"loss": values}, ["loss"], "loss", scale=scale).size == (832, 532)
    assert figures[0].axes[0].get_yscale() == scale


def test_text_of_plots_is_drawn_literally(figures: list[Any]) -> None:
    r"""Matplotlib reads `$\x$` as a formula, and this one has an error in it."""
    pictures.curves({r"$\x$": [1.0, 2.0]}, [r"$\x$"], "a\nb", title=r"$\x$")
    pictures.scatter(np.zeros((2, 2)), np.arange(2), names=[r"$\x$", "line\nbreak"], title=r"$\x$")
    assert figures[0].axes[0].get_ylabel() == "a b"
    assert [text.get_text() for text in figures[1].legends[0].get_texts()] == [r"\$\x\$", "line break"]


# --- Latent points ----------------------------------------------------------------------------------------------------


CLASSES = tuple(f"class {number}" for number in range(10))


def latent_points(latent: int) -> tuple[np.ndarray, np.ndarray]:
    """Points that vary the less the later the dimension, and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(3, 1 / np.arange(1, latent + 1), (50, latent)), rng.permutation(50) % 10


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_scatter_of_one_dimension_is_against_the_class(figures: list[Any]) -> None:
    points, labels = latent_points(1)
    pictures.scatter(points, labels, names=CLASSES)
    (axes,) = figures[0].axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), np.stack([points[:, 0], labels], axis=1))
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("z₁", "class", "auto")
    assert [text.get_text() for text in axes.get_yticklabels()] == list(CLASSES)


def test_scatter_of_two_dimensions_is_the_latent_plane(figures: list[Any]) -> None:
    points, labels = latent_points(2)
    pictures.scatter(points, labels, names=CLASSES, title="latent points")
    (axes,) = figures[0].axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), points)
    np.testing.assert_array_equal(axes.collections[0].get_array(), labels)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("z₁", "z₂", 1)
    assert figures[0].get_suptitle() == "latent points"
    dots = axes.collections[0]
    assert legend(figures[0]) == list(CLASSES)
    marks = [mark.get_color() for mark in figures[0].legends[0].get_lines()]
    np.testing.assert_allclose(marks, dots.to_rgba(np.arange(10)))
    assert len({tuple(mark) for mark in marks}) == 10


def test_the_legend_has_the_classes_that_there_are(figures: list[Any]) -> None:
    pictures.scatter(np.zeros((3, 2)), np.array([2, 5, 2]), names=CLASSES)
    pictures.scatter(np.zeros((3, 2)), np.array([2, 5, 2]))
    pictures.scatter(np.zeros((3, 2)), np.zeros(3, int))
    assert [legend(figure) for figure in figures[:2]] == [["class 2", "class 5"], ["2", "5"]]
    assert not figures[2].legends


def test_many_classes_have_a_colour_bar(figures: list[Any]) -> None:
    pictures.scatter(np.zeros((100, 2)), np.arange(100))
    _, bar = figures[0].axes
    assert (bar.get_ylabel(), figures[0].legends) == ("class", [])


def test_scatter_marks_the_latent_grid(figures: list[Any]) -> None:
    points, labels = latent_points(2)
    pictures.scatter(points, labels, extent=2.5)
    (square,) = figures[0].axes[0].lines
    corners = [(-2.5, -2.5), (2.5, -2.5), (2.5, 2.5), (-2.5, 2.5), (-2.5, -2.5)]
    np.testing.assert_array_equal(square.get_xydata(), corners)


def test_scatter_of_three_dimensions_is_drawn_from_six_sides(figures: list[Any]) -> None:
    points, labels = latent_points(3)
    pictures.scatter(points, labels, names=CLASSES)
    views = figures[0].axes
    assert legend(figures[0]) == list(CLASSES)
    assert [axes.azim for axes in views] == [0, 60, 120, 180, 240, 300]
    assert [axes.get_title() for axes in views] == ["0°", "60°", "120°", "180°", "240°", "300°"]
    for axes in views:
        np.testing.assert_allclose(np.stack(axes.collections[0]._offsets3d, axis=1), points)


def test_scatter_of_more_dimensions_shows_principal_components(figures: list[Any]) -> None:
    points, labels = latent_points(5)
    pictures.scatter(points, labels)
    (axes,) = figures[0].axes
    reference = PCA(2).fit(points)
    shown, projected = np.asarray(axes.collections[0].get_offsets()), reference.transform(points)
    signs = np.sign((shown * projected).sum(0))  # of a component are arbitrary
    np.testing.assert_allclose(shown * signs, projected, atol=1e-12)
    share = reference.explained_variance_ratio_.sum()
    assert 0.5 < share < 0.95
    assert figures[0].get_suptitle() == f"two principal components of 5: {share:.0%} of the variance"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("first component", "second component")


def test_scatter_of_equal_points_is_drawn(figures: list[Any]) -> None:
    """As of a VAE whose posterior has collapsed."""
    with np.errstate(all="raise"):
        _, share = plots._principal_components(np.ones((20, 5)))
    assert share == 1
    assert pictures.scatter(np.ones((20, 5)), np.arange(20)).size == (882, 732)
    assert figures[0].axes[0].collections[0].get_cmap().name == "tab20"  # tab10 has ten colours


# --- The user's environment -------------------------------------------------------------------------------------------

CHECK_LAZY_IMPORT = """
import sys
import jaxgen.pictures
assert "matplotlib" not in sys.modules, "importing jaxgen imports Matplotlib"
"""
DRAW_ALL = """
import numpy as np
from jaxgen import pictures
from jaxgen.pictures import plots
images = [
    pictures.curves({"loss": [3.0, 0.02, 1.0]}, ["loss"], "error", scale="log"),
    pictures.sheet(np.zeros((2, 4, 4, 1)), 2, title="two", column_labels=["z₁", "$x$"]),
    pictures.scatter(np.arange(10.0).reshape(5, 2), np.arange(5)),
]
"""
PRINT_HASH = "import hashlib; print(hashlib.sha256(b''.join(image.tobytes() for image in images)).hexdigest())"
PRINT_ENVIRONMENT = "import os; print(os.environ.get('MPLBACKEND'), os.environ.get('MATPLOTLIBRC'))"


@pytest.fixture(scope="module")
def wanted_hash() -> str:
    namespace: dict[str, Any] = {}
    exec(DRAW_ALL, namespace)
    return hashlib.sha256(b"".join(image.tobytes() for image in namespace["images"])).hexdigest()


@pytest.mark.parametrize(
    ("variables", "matplotlibrc"),
    [
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, b""),
        ({"MPLBACKEND": "no such backend"}, b""),
        ({}, b"text.usetex: True\nfont.size: 30\nsavefig.dpi: 10\n"),
        ({}, b"font.size: large\nno such key: 3\nlines\n"),
        ({}, b"font.size: 12 # \xff\n"),
        ({"MPLCONFIGDIR": os.devnull + "/nothing"}, b""),
    ],
    ids=["backend of a notebook", "unknown backend", "LaTeX", "unknown settings", "not UTF-8", "no folder to write to"],
)
def test_plots_do_not_depend_on_the_environment(
    variables: dict[str, str], matplotlibrc: bytes, wanted_hash: str, tmp_path: Path
) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MPL")} | variables
    if matplotlibrc:
        (tmp_path / "matplotlibrc").write_bytes(matplotlibrc)
        variables["MATPLOTLIBRC"] = str(tmp_path / "matplotlibrc")
    else:
        variables.pop("MATPLOTLIBRC", None)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([CHECK_LAZY_IMPORT, DRAW_ALL, PRINT_HASH, PRINT_ENVIRONMENT])],
        env=variables, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    kept = f"{variables.get('MPLBACKEND')} {variables.get('MATPLOTLIBRC')}"
    assert done.stdout.splitlines() == [wanted_hash, kept]


def test_plots_are_drawn_without_a_home_folder(wanted_hash: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in {"HOME", "XDG_CACHE_HOME"}}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([DRAW_ALL, PRINT_HASH])],
        env=variables, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, wanted_hash, "")


def test_the_users_settings_are_neither_used_nor_changed(wanted_hash: str) -> None:
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "figure.dpi": 17}):
        before = dict(matplotlib.rcParams.copy())
        namespace: dict[str, Any] = {}
        exec(DRAW_ALL, namespace)
        assert dict(matplotlib.rcParams.copy()) == before
    assert hashlib.sha256(b"".join(image.tobytes() for image in namespace["images"])).hexdigest() == wanted_hash
