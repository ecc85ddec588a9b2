"""supervisord in the foreground, which ends with its parent.

    python -m dev.stack.supervise var/run/supervisord.conf

Its standard input is a pipe from the parent. When the parent ends in any way, the pipe closes and supervisord stops all
parts. So `kill -9` of `make run` leaves no process behind.
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
