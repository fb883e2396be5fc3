"""Progress of a run on the screen: a line an epoch, and on a terminal a live one below."""

import sys
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
        if sys.stdout.isatty():
            from tqdm import tqdm

            form = "epoch {desc} |{bar}| {rate_fmt} · {remaining} left"
            self.bar = tqdm(
                desc=self.place(epoch), total=epochs * steps, initial=epoch * steps + step, unit=" steps",
                bar_format=form, file=sys.stdout, dynamic_ncols=True, leave=False,
            )  # fmt: skip

    def update(self, epoch: int, step: int) -> None:
        """So far has the run come."""
        if self.bar is not None:
            self.bar.set_description_str(self.place(epoch), refresh=False)
            self.bar.update(epoch * self.steps + step - self.bar.n)

    def place(self, epoch: int) -> str:
        return f"{min(epoch + 1, self.epochs)}/{self.epochs}"

    def epoch(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        """An epoch has ended, after so many seconds of training."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        rate, left = self.steps / seconds, (self.epochs - epoch) * seconds
        self.say(f"epoch {epoch}/{self.epochs}  {figures}  {rate:,.1f} steps/s  {clock(left)} left")

    def say(self, text: str) -> None:
        """A line of its own, which stays."""
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def results(self, folder: Path, epochs: int, history: Mapping[str, list[float]]) -> None:
        """Where everything is, at the end."""
        self.close()
        figures = "  ".join(f"{name} {values[-1]:.4f}" for name, values in history.items() if name != "seconds")
        print(f"trained to epoch {epochs} in {clock(sum(history.get('seconds', [])))}  {figures}")
        pictures = sorted((folder / "pictures").glob("*.*"), key=lambda path: path.stat().st_mtime_ns)
        print(f"run       {folder}")
        print("pictures  " + "\n          ".join(str(path) for path in pictures[-MAIN_PICTURES:]), flush=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
