"""Where the seconds go."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Self


class Stopwatch:
    """Shares out the time among named parts: each second counts once, for the innermost part that it was spent in.

    What JAX takes to trace, lower and compile goes to the part "compiling", wherever it happens; what is in no part to
    "other".
    """

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.parts = ["other"]
        self.since = time.perf_counter()

    def settle(self) -> None:
        """Book the time since the last booking."""
        now = time.perf_counter()
        self.spent[self.parts[-1]] += now - self.since
        self.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.settle()
        self.parts.append(name)
        try:
            yield
        finally:
            self.settle()
            self.parts.pop()

    def watch(self, owner: Any, name: str, part: str) -> None:
        """From now on the calls of `owner.name` are a part."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(part):
                return function(*arguments, **options)

        setattr(owner, name, timed)

    @contextmanager
    def compiling(self) -> Iterator[Self]:
        """Listen to what JAX compiles in the meantime. It imports JAX."""
        import jax

        jax.monitoring.register_event_duration_secs_listener(self.compiled)
        try:
            yield self
        finally:
            jax.monitoring.unregister_event_duration_listener(self.compiled)

    def compiled(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):  # jaxpr_trace, jaxpr_to_mlir_module and backend_compile
            self.spent["compiling"] += duration_secs
            self.spent[self.parts[-1]] -= duration_secs
