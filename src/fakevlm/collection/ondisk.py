"""A mapping that lies on disk: what must be remembered of every image, and would not fit into memory for millions of them."""

import sqlite3

CACHE_KIB = 32 << 10


class DiskDict:
    """Texts by key in a temporary SQLite file, which vanishes with this object (or with the process, however that ends).

    Some 10 µs an operation and `CACHE_KIB` of memory, at any number of entries; to be used in the thread that made it.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect(
            "", isolation_level=None
        )  # no name: a private file that is deleted when closed
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE entries (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")  # never ended: nothing has to survive

    def get(self, key: bytes | str | int) -> str | None:
        """What `key` stands for, None if nothing."""
        row = self._db.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def add(self, key: bytes | str | int, value: str) -> bool:
        """Remembers a text; False, and nothing changes, where the key has one already."""
        return self._db.execute("INSERT OR IGNORE INTO entries VALUES (?, ?)", (key, value)).rowcount == 1
