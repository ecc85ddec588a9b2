"""What `make demo` and `make run` install is enough for them, and agrees with what `make test` and the image have."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

from dev.stack.environment import any_ports, stack_environment
from dev.stack.parts import parts

ROOT = Path(__file__).parents[2]
PRODUCT = {"cli", "web", "workers", "tasks", "inbox", "telemetry", "settings"}
PINNED = re.compile(r"^([a-z0-9-]+)==.*\n(?:    --hash=.*\n)+", re.MULTILINE)
# Started as `python -m NAME` by dev/stack and bin/holdfast, apart from the parts of the stack.
PROGRAMS = {"dev.demo.__main__", "dev.run", "dev.stack.supervise"}


def pins(lock: str) -> dict[str, str]:
    """By name: version and hashes, without the platforms, of which a larger lock may need a package on more."""
    return {found[1]: re.sub(r" ; .*(?= \\\n)", "", found[0]) for found in PINNED.finditer((ROOT / lock).read_text())}


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("requirements.lock", "requirements-demo.lock"),
        ("requirements-demo.lock", "requirements-dev.lock"),
        ("requirements-sbom.lock", "requirements-dev.lock"),
    ],
)
def test_a_lock_is_a_part_of_the_larger_one(smaller: str, larger: str) -> None:
    assert pins(smaller), "it is empty"
    assert pins(smaller).items() <= pins(larger).items()


def test_the_demo_and_the_local_stack_import_only_what_their_lock_has(tmp_path: Path) -> None:
    graph = grimp.build_graph(*PRODUCT, "dev", include_external_packages=True, cache_dir=None)
    started = {*PROGRAMS, *started_modules(tmp_path)}
    roots = {name for name in graph.modules if name.partition(".")[0] in PRODUCT or name in started}
    imported = started.union(*(graph.find_upstream_modules(name) for name in roots))
    needed = distributions({name for name in imported - roots if name.partition(".")[0] not in {*PRODUCT, "dev"}})
    assert {"flask", "localstripe", "aiosmtpd", "rich", "supervisor"} <= needed
    assert needed <= pins("requirements-demo.lock").keys()


def started_modules(folder: Path) -> Iterator[str]:
    """What the stack's parts run by `python -m`."""
    ports = any_ports()
    for part in parts(folder, ports, stack_environment(folder, ports, {})):
        if "-m" in part.command:
            yield part.command[part.command.index("-m") + 1]


def distributions(modules: set[str]) -> set[str]:
    """Whose modules they are, apart from the standard library, by their names in a lock."""
    known = packages_distributions()
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    return {re.sub(r"[-_.]+", "-", name).lower() for top in tops for name in known.get(top, [top])}
