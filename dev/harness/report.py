"""The last lines of the demo and of a chaos run."""

from __future__ import annotations

from collections.abc import Callable

from dev.harness.checker import Verdict

SHOWN = 20  # findings of each sort; the others are only counted


def print_verdict(verdict: Verdict, print_line: Callable[[str], object] = print) -> None:
    """Each finding, then the line `lost 0, doubled 0, wrong 0` with the counts."""
    findings = {"lost": verdict.lost, "doubled": verdict.doubled, "wrong": verdict.wrong}
    for name, lines in findings.items():
        for line in sorted(lines)[:SHOWN]:
            print_line(f"  {name}: {line}")
        if len(lines) > SHOWN:
            print_line(f"  {name}: {len(lines) - SHOWN} more")
    print_line(", ".join(f"{name} {len(lines)}" for name, lines in findings.items()))
