#!/bin/sh
# Requests 2.34.2 with urllib3 2.8.0 (and http.client of Python 3.11): an interim response such as 103 Early Hints (RFC 8297) is
# returned as the answer, without a body. The connection goes back to the pool with the real answer unread, so the next
# request of the Session gets the answer to the one before.
#
# RFC 9110, 15.2: "A client MUST be able to parse one or more 1xx responses received prior to a final response, even if the
# client does not expect one." http.client passes over 100 only.
#
# Output on Linux 6.18, Python 3.11:
#   GET /one 103 ''
#   GET /two 200 '/one'
#
# This exits with 1 if each request gets its own answer.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check requests==2.34.2 urllib3==2.8.0
cd "$folder"

cat >early_hints.py <<'END'
"""A server that sends 103 at once and its answer, the path, when it is ready; and two requests of a Session."""

import socketserver
import sys
import threading
import time

import requests

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"


class Server(socketserver.StreamRequestHandler):
    def handle(self):
        while request := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            path = request.split()[1]
            self.wfile.write(HINTS)
            time.sleep(0.3)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))


server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
own = 0
with requests.Session() as session:
    for path in ("/one", "/two"):
        response = session.get(f"http://127.0.0.1:{server.server_address[1]}{path}", timeout=10)
        print(f"GET {path} {response.status_code} {response.text!r}")
        own += response.text == path
sys.exit(own == 2)
END
venv/bin/python early_hints.py
