"""The progress of a run on the screen: a line an epoch, and a progress bar on a terminal or in a notebook.

All of it is for whoever watches. A terminal that is gone, or a stream that is closed or full, never ends a run.
"""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from jaxgen.runs.models import means, summarised
from jaxgen.signals import say

_WIDTH = 80
_QUIET = 30.0  # seconds after which a long epoch prints a line where there is no progress bar
_MOST_PICTURES = 6


class Progress:
    """What the user sees of a run.

    Args:
        label: a word that every line contains, to tell runs of one command apart.
    """

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.bar: Any = None
        self.last_said = time.monotonic()
        self.pace: float | None = None  # seconds a step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, epochs: int, steps: int) -> None:
        """Training begins; there are `epochs` of `steps` each."""
        self.epochs, self.steps = epochs, steps
        self.last_said = time.monotonic()
        self.has_bar = _in_notebook() or _on_terminal()

    def _make_bar(self, epoch: int, step: int) -> Any:
        options: dict[str, Any] = {
            "desc": self._place(epoch), "total": self.epochs * self.steps, "initial": epoch * self.steps + step,
            "unit": " steps", "leave": False,
        }  # fmt: skip
        if _in_notebook() and importlib.util.find_spec("ipywidgets"):
            from tqdm.notebook import tqdm as notebook_bar

            return notebook_bar(**options)
        from tqdm import tqdm

        form = "{desc} |{bar}| {rate_fmt} · {remaining} left"
        return tqdm(bar_format=form, file=sys.stdout, dynamic_ncols=True, **options)

    def update(self, epoch: int, step: int, steps: int, seconds: float) -> None:
        """The run is at `step` after `epoch` finished epochs; the last `steps` took `seconds`."""
        if steps:
            self.pace = seconds / steps
        if self.has_bar:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if self.bar is None:  # made after the first steps, so that its rate excludes compilation
                    self.bar = self._make_bar(epoch, step)
                self.bar.set_description_str(self._place(epoch), refresh=False)
                self.bar.update(epoch * self.steps + step - self.bar.n)
        elif step and self.pace and time.monotonic() - self.last_said > _QUIET:
            left = (self.epochs * self.steps - epoch * self.steps - step) * self.pace
            self.say(f"{self._place(epoch)}  step {step}/{self.steps}  {rate(self.pace)}  {clock(left)} left")

    def _place(self, epoch: int) -> str:
        return self._labelled(min(epoch + 1, self.epochs))

    def _labelled(self, epoch: int) -> str:
        return f"epoch {epoch}/{self.epochs}" + (f"  {self.label}" if self.label else "")

    def epoch(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        """An epoch has ended, after `seconds` of training."""
        ending = [rate(seconds / self.steps), f"{clock((self.epochs - epoch) * seconds)} left"]
        for digits, optional in ((4, ending), (4, ending[1:]), (3, ending[1:]), (3, [])):
            line = "  ".join([self._labelled(epoch), *grouped(metrics, digits), *optional])
            if len(line) <= _WIDTH:
                break
        else:
            line = "  ".join([self._labelled(epoch), *grouped(means(metrics), digits)])
        self.say(line[:_WIDTH])

    def say(self, text: str) -> None:
        """A line of its own, which stays."""
        self.last_said = time.monotonic()
        if self.bar is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                self.bar.write(text, file=sys.stdout)
                return
        say(text)

    def close(self) -> None:
        """Remove the progress bar."""
        bar, self.bar = self.bar, None
        if bar is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                bar.close()

    def results(self, folder: Path, epochs: int, history: Mapping[str, list[float]], pictures: list[Path]) -> None:
        """Where everything is, at the end."""
        self.close()
        last = {name: values[-1] for name, values in history.items() if name != "seconds" and values}
        seconds = sum(history.get("seconds", []))
        say("  ".join([f"trained to epoch {epochs} in {clock(seconds)}", *grouped(last, 4)]))
        say(f"run       {folder}")
        if pictures:
            say("pictures  " + "\n          ".join(map(str, pictures[-_MOST_PICTURES:])))


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def _on_terminal() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stdout.isatty()
    return False


def grouped(metrics: Mapping[str, float], digits: int) -> list[str]:
    """Metrics as text, in which those with a common first word share it: `error fake 0.591 real 0.585`.

    Those of several models are given as mean and standard deviation: `loss 0.0123±0.0004`.
    """
    texts = []
    for first, group in groupby(summarised(metrics).items(), key=lambda metric: metric[0].partition("_")[0]):
        members = list(group)
        if len(members) == 1:
            texts.append(f"{members[0][0]} {members[0][1]:.{digits}g}")
        else:
            parts = (f"{name.removeprefix(first).strip('_')} {value:.{digits}g}".strip() for name, value in members)
            texts.append(f"{first} {' '.join(parts)}")
    return texts


def rate(pace: float) -> str:
    """Steps a second, or seconds a step where that is more than one."""
    return f"{pace:.1f} s/step" if pace > 1 else f"{1 / max(pace, 1e-9):,.1f} steps/s"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
