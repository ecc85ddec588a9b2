"""The files that a process creates: documents, SQLite and Flower's history hold personal data."""

from __future__ import annotations

import os


def keep_files_private() -> None:
    """From now on only the user of this process can open what it and its child processes create.

    Called where a process starts. Other processes of the same user, also in other containers, share files as before.
    """
    os.umask(0o077)
