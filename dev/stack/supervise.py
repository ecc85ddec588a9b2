"""supervisord in the foreground, for as long as its parent lives.

    python -m dev.stack.supervise var/run/supervisord.conf

Its standard input is a pipe that the parent holds: when the parent ends, however it ends, the pipe closes and
supervisord stops all its parts. So even `kill -9` of `make run` leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from supervisor.supervisord import main


def stop_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=stop_with_parent, daemon=True).start()
    main(["--nodaemon", "--configuration", sys.argv[1]])
