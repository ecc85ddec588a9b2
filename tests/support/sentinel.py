"""Sentinels that watch one Valkey server and its replicas."""

from __future__ import annotations

from pathlib import Path

from dev.stack.servers import Valkey, valkey_binary


class Sentinel(Valkey):
    """A Sentinel that watches one master, under the name SERVICE, and lets a replica take over after 1 s."""

    SERVICE = "holdfast"

    def __init__(self, folder: Path, master: Valkey, quorum: int) -> None:
        super().__init__(folder)
        self._watch = f"sentinel monitor {self.SERVICE} 127.0.0.1 {master.port} {quorum}"

    def command(self) -> list[str]:
        """Its configuration must be a file, because it writes its state there."""
        file = self.folder / "sentinel.conf"
        if not file.exists():
            file.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n{self._watch}\n"
                f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
                f"sentinel failover-timeout {self.SERVICE} 5000\n"
            )
        return [valkey_binary(), str(file), "--sentinel"]


def sentinel_url(sentinels: list[Sentinel]) -> str:
    """The value for REDIS_URL."""
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    return f"sentinel://{hosts}/0?service={Sentinel.SERVICE}"
