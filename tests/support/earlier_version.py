"""The record as an earlier version of Holdfast writes it: its scripts, as they were before the sets of each queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from inbox.store import Store

SCRIPTS = Path(__file__).parent / "earlier_scripts"


class EarlierStore(Store):
    """A store of a worker or receiver that has not been replaced yet."""

    def __init__(self, client: redis.Redis, **options: Any) -> None:
        super().__init__(client, **options)
        common = (SCRIPTS / "common.lua").read_text()
        for file in SCRIPTS.glob("*.lua"):
            if file.stem != "common":
                flags = "" if file.stem == "record" else " flags=allow-oom"
                self._scripts[file.stem] = client.register_script(f"#!lua{flags}\n{common}{file.read_text()}")
