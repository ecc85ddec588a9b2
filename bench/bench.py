"""The contenders of a run, measured in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bench import rounds
from bench.contenders import INSTALLED, Contender, start_valkey
from bench.load import Figures

Measure = Callable[[Any, int], Figures]


class Bench:
    """All receivers that can run here run at once, until `stack` stops them; only one is under load at a time."""

    def __init__(self, stack: ExitStack, kinds: Sequence[type[Contender]]) -> None:
        self.contenders: list[Contender] = []
        self.rounds: dict[str, dict[str, list[Figures]]] = {}
        self.left_out: dict[str, str] = {}
        self.folder = folder = INSTALLED / "run"
        valkey = start_valkey(folder, stack)
        for kind in kinds:
            contender = kind(valkey, folder)
            try:
                contender.prepare(stack)
                if contender.web:
                    contender.start_receiver(stack)
                self.contenders.append(contender)
            except (OSError, RuntimeError) as error:
                self._leave_out(contender, error)

    def run(self, what: str, measure: Measure, count: int, amount: int) -> None:
        """Contenders alternate within each round, so that other load on the machine affects all of them."""
        for number in range(count):
            for contender in [it for it in self.contenders if what in it.measurements]:
                try:
                    figures = measure(contender, amount)
                except (rounds.Miscounted, TimeoutError, RuntimeError, ExceptionGroup) as error:
                    self._leave_out(contender, error)
                    continue
                self.rounds.setdefault(what, {}).setdefault(contender.name, []).append(figures)
                shown = "  ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
                print(f"{what} {number + 1}/{count:<6} {contender.name:24} {shown}", flush=True)

    def _leave_out(self, contender: Contender, error: Exception) -> None:
        """Remove all results of the contender: a partial comparison would mislead."""
        print(f"{contender.name} is left out: {error}", flush=True)
        self.left_out[contender.name] = " ".join(str(error).replace(str(INSTALLED), "…").split())[:300]
        self.contenders = [it for it in self.contenders if it is not contender]
        for kept in self.rounds.values():
            kept.pop(contender.name, None)
