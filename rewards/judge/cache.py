"""Verdicts that were paid for once: a SQLite file from digest to verdict, shared by runs and processes."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from pathlib import Path

from rewards.settings import SettingsError

_LOG = logging.getLogger(__name__)

_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (digest BLOB PRIMARY KEY, verdict TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID
"""


def digest_of(*parts: object) -> bytes:
    """sha256 over parts that JSON can write, each set apart from the next."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()


class VerdictCache:
    """Keeps verdicts by digest; with path None only in memory.

    A cache that breaks while it is used (disk full, file removed) costs its answers, not the run: reads miss, writes
    are dropped, and the first failure is logged.

    Raises:
        SettingsError: the file can't be opened or is not a SQLite database.
    """

    def __init__(self, path: str | None) -> None:
        self._lock = threading.Lock()
        self._healthy = True
        try:
            if path is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=5.0, check_same_thread=False, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_TABLE)
        except (sqlite3.Error, OSError) as exc:
            raise SettingsError(f"judge cache {path} can't be opened: {exc}; name another file, or leave out") from exc

    def get(self, digest: bytes) -> int | str | None:
        try:
            with self._lock:
                row = self._connection.execute("SELECT verdict FROM verdicts WHERE digest = ?", (digest,)).fetchone()
            return None if row is None else json.loads(row[0])
        except (sqlite3.Error, ValueError) as exc:
            self._warn(exc)
            return None

    def put(self, digest: bytes, verdict: int | str) -> None:
        try:
            with self._lock:
                self._connection.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", (digest, json.dumps(verdict), time.time())
                )
        except sqlite3.Error as exc:
            self._warn(exc)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _warn(self, exc: Exception) -> None:
        if self._healthy:
            self._healthy = False
            _LOG.warning("the judge cache does not work (%s: %s); verdicts are asked for anew", type(exc).__name__, exc)
