"""What the pages of all measurements share: arguments, templates, and the description of the machine."""

from __future__ import annotations

import argparse
import os
import platform
import re
from pathlib import Path

import psutil

from bench.processes import ROOT
from dev.stack.signals import end_by_exception


def parse_arguments(module: str, **options: int) -> argparse.Namespace:
    """--report, and `options` with their defaults. From now on signals raise KeyboardInterrupt."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--report", type=Path, default=ROOT / "docs", help="folder of the page")
    for name, default in options.items():
        kind = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", **kind)
    end_by_exception()
    return parser.parse_args()


def write_page(page: Path, template: str, **values: str) -> None:
    """Fill the template of bench/ in, write the page and print it."""
    text = (Path(__file__).parent / template).read_text().format(**values)
    page.write_text(text)
    print(text)


def machine() -> str:
    """Description of the machine and of its load before the run."""
    memory = psutil.virtual_memory().total / 1024**3
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    load = f"load {os.getloadavg()[0]:.1f} before the run"
    return f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GB, {kernel}, {load}"


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.machine()
