"""Progress of a run on the screen: a live line on a terminal, a plain line an epoch elsewhere."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

MAIN_PICTURES = 6


class Progress:
    """What the person at the keyboard sees of a run, on stdout."""

    def __enter__(self) -> Self:
        self.bar: Any = None
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, epochs: int, steps: int, epoch: int, step: int) -> None:
        """`epochs` of `steps` each are asked for; `epoch` of them are finished, and `step` of the next."""
        self.epochs, self.steps = epochs, steps
        self.first, self.began = epoch * steps + step, time.perf_counter()
        if sys.stdout.isatty():
            from tqdm import tqdm

            form = "epoch {desc} |{bar}| {rate_fmt}{postfix} · {remaining} left"
            self.bar = tqdm(
                total=epochs * steps, initial=self.first, unit=" steps", bar_format=form, file=sys.stdout,
                dynamic_ncols=True, leave=False,
            )  # fmt: skip

    def update(self, epoch: int, step: int) -> None:
        """So far has the run come."""
        if self.bar is not None:
            self.bar.set_description_str(f"{min(epoch + 1, self.epochs)}/{self.epochs}", refresh=False)
            self.bar.update(epoch * self.steps + step - self.bar.n)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch has ended."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        if self.bar is not None:
            self.bar.set_postfix_str(figures, refresh=False)
            return
        elapsed, done = time.perf_counter() - self.began, epoch * self.steps - self.first
        left = elapsed / done * (self.epochs * self.steps - self.first - done)
        print(f"epoch {epoch}/{self.epochs}  {figures}  {done / elapsed:,.1f} steps/s  {clock(left)} left", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def results(self, folder: Path, epochs: int, history: Mapping[str, list[float]]) -> None:
        """Where everything is, at the end."""
        self.close()
        figures = "  ".join(f"{name} {values[-1]:.4f}" for name, values in history.items() if name != "seconds")
        print(f"{epochs} epochs trained in {clock(sum(history.get('seconds', [])))}  {figures}")
        pictures = sorted((folder / "pictures").glob("*.*"), key=lambda path: path.stat().st_mtime_ns)
        print(f"run       {folder}")
        print("pictures  " + "\n          ".join(str(path) for path in pictures[-MAIN_PICTURES:]), flush=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
