"""The page of a run: one HTML file with what was done, what came out, and the trained model to play with.

A page is made from a run's folder alone and is meant to be sent: it opens without a network, in any browser, and holds
no path, user or machine name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxgen.durable import write as write_file
from jaxgen.errors import InputError
from jaxgen.metrics import title
from jaxgen.report.content import of_comparison, of_run, plotted
from jaxgen.report.folder import Run
from jaxgen.report.live import live_model
from jaxgen.report.network import UnsupportedError
from jaxgen.report.page import page
from jaxgen.report.thumbnails import pictures

__all__ = ["comparison", "write"]

SIZE = 400_000  # bytes of a page beside its weights

_TEXTS = {
    "vae": (
        "Its latent space",
        "Move over the plane: the image is what the model sees there. Draw something, and it lands on the plane with "
        "its spread.",
    ),
    "generator": (
        "The generator",
        "Every image is made from a vector of random numbers. Choose a sample, walk from one to the next, or move the "
        "numbers yourself.",
    ),
    "completion": (
        "Let it finish a picture",
        "The network reads rows of pixels and predicts the next one. Draw the upper half, or choose a picture, and "
        "watch it go on.",
    ),
    "autoencoder": (
        "Its code",
        "A picture becomes a few numbers, and these become the picture again. Change the numbers and see what they "
        "stand for.",
    ),
}


def write(folder: str | Path, kind: Literal["plain", "live"] = "live") -> Path:
    """Write `report.html` into a run's folder, as a whole or not at all.

    The page of a run that is not finished has no model in it, and loads itself again from time to time.

    Args:
        folder: A run's folder, or that of several runs of one experiment.
        kind: "live" puts the trained model into the page; "plain" does not.

    Returns:
        The file.

    Raises:
        InputError: There is no run in the folder.
    """
    run = Run(Path(folder))
    content, weights = of_run(run), ""
    if kind == "live" and run.finished is None:
        content["plain"] = "The model joins this page when the training is finished."
    elif kind == "live":
        try:
            content["live"], weights = live_model(run)
            content |= _about_live(content["live"])
            content["footer"].append(_precision(content["live"]))
        except UnsupportedError as why:
            content["plain"] = f"The model does not run in this page: {why}."
    path = Path(folder) / "report.html"
    write_file(path, _with_pictures(content, weights, {"": run}).encode())
    return path


def comparison(folders: Sequence[str | Path]) -> str:
    """A page that shows several runs, one over the other, with what differs in their settings.

    Args:
        folders: The runs' folders, two or more.

    Returns:
        The page, as HTML.

    Raises:
        InputError: A folder holds no run, or there are fewer than two.
    """
    if len(folders) < 2:
        raise InputError("name the folders of two runs or more to compare")
    runs = dict(zip(_names([Path(folder) for folder in folders]), map(Run, map(Path, folders)), strict=True))
    return _with_pictures(of_comparison(runs), "", runs)


def _with_pictures(content: dict[str, Any], weights: str, runs: Mapping[str, Run]) -> str:
    """The page, with as many pictures as there is room for."""
    content["pictures"] = []
    left = SIZE - (len(page(content, weights).encode()) - len(weights)) - 2000  # the pictures' names
    for place, (name, run) in enumerate(runs.items()):
        shown = {"": run} if run.drawn() or not run.cells else run.cells
        for inner, one in shown.items():
            share = left // ((len(runs) - place) * len(shown))
            for picture in pictures(one, share, plotted(run)):
                words = " · ".join(filter(None, [name, inner.upper(), title(picture["name"])]))
                content["pictures"].append({**picture, "key": words, "title": words})
                left -= sum(len(frame["source"]) for frame in picture["frames"])
    if len(runs) > 1:
        content["pictures"].sort(key=lambda picture: picture["name"])  # side by side; runs keep their order
    return page(content, weights)


def _about_live(about: dict[str, Any]) -> dict[str, str]:
    heading, text = _TEXTS[about["kind"]]
    if about["model"]:
        text += f" Of the models of this run, it is that of {about['model']}."
    return {"live_title": heading, "live_text": text}


def _precision(about: dict[str, Any]) -> str:
    if about["change"] is None:
        return "The model in this page computes with the trained weights as they are, in float32."
    return (
        f"The weights in this page are rounded to float16, which makes it half as large: of {about['probes']} pictures "
        f"that were computed with both, no pixel differs by more than {about['change'] * 255:.2g}/255."
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """As much of the ends of the folders' paths as tells them apart."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError("a run is named twice; name different ones")
