"""What stands in front of Holdfast in compose keeps no signature of ours in its log: a real Caddy."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import requests

from dev.stack.servers import free_port, wait_until
from tests.support.caddy import CADDY

CADDYFILE = Path(__file__).parents[4] / "deploy" / "Caddyfile"


def test_links_are_logged_without_what_opens_them_and_metrics_and_health_are_closed(tmp_path: Path) -> None:
    port = free_port()
    nobody = re.sub(r"(receiver|flower):[0-9]+", "127.0.0.1:9", CADDYFILE.read_text())
    (tmp_path / "Caddyfile").write_text(nobody.replace(":2020", f":{free_port()}").replace("15s", "0s"))
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "DOMAIN": f"http://127.0.0.1:{port}"}
    command = [CADDY, "run", "--config", str(tmp_path / "Caddyfile")]
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen(command, stderr=file, env={**os.environ, **home}) as caddy:
        wait_until(lambda: "serving initial configuration" in log.read_text(), seconds=30, what="Caddy")
        try:
            for address in ("content/doc_1?until=5&signature=open-sesame", "doc-status-webhook?token=open-sesame"):
                assert requests.get(f"http://127.0.0.1:{port}/{address}", timeout=10).status_code == 502
            for closed in ("metrics", "livez", "readyz", "readyz?only=store", "readyz/", "READYZ", "//readyz"):
                assert requests.get(f"http://127.0.0.1:{port}/{closed}", timeout=10).status_code == 404
            wait_until(lambda: log.read_text().count("http.log.error") == 2, seconds=10, what="its lines")
        finally:
            caddy.terminate()
    assert "/content/doc_1" in log.read_text()
    assert "open-sesame" not in log.read_text()
