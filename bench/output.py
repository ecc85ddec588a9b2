"""Arguments, templates and tables that the measurements share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.processes import ROOT
from dev.stack.signals import end_by_exception


def parse_arguments(module: str, *flags: str, **numbers: int) -> argparse.Namespace:
    """--report, the flags, and an integer option per item of `numbers`. From now on signals raise KeyboardInterrupt."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--report", type=Path, default=ROOT / "docs", help="folder of the page")
    for name in flags:
        parser.add_argument(f"--{name}", action="store_true")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    end_by_exception()
    return parser.parse_args()


def template(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))
