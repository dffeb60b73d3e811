"""A real PostgreSQL of one's own, on a Unix socket in a temporary folder."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

_VERSIONS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
# As durable as in production: what a kill -9 of the server itself leaves is part of what is tested.
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "logging_collector": "off",
}


def _as_postgres():
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class PostgreSQL:
    """`start`, `kill`, `restart`; `database` makes an empty one and gives its URL."""

    def __init__(self):
        if not _VERSIONS:
            raise FileNotFoundError("PostgreSQL is not installed under /usr/lib/postgresql")
        self._bin = _VERSIONS[-1]
        self.folder = Path(tempfile.mkdtemp(prefix="kekkai-pg-"))  # short: a socket's path has 107 bytes
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            shutil.chown(self.data, "postgres", "postgres")
        self._run("initdb", "-D", self.data, "-U", "kekkai", "--auth=trust", "-E", "UTF8", "--no-locale", "-N")
        self.process = None
        self._databases = 0

    def _run(self, program, *arguments):
        command = [*_as_postgres(), self._bin / program, *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    def start(self):
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [*_as_postgres(), self._bin / "postgres", "-D", self.data, "-k", self.folder, *settings]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
                return self
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self.folder / "log").read_text()[-4000:]) from None
                time.sleep(0.02)

    def stop(self):
        """At once, without waiting for clients."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=30)

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database):
        return f"host={self.folder} user=kekkai dbname={database}"

    def database(self):
        """A new, empty database: (name, SQLAlchemy URL)."""
        self._databases += 1
        name = f"keys{self._databases}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name, f"postgresql+psycopg://kekkai@/{name}?host={self.folder}"

    def copy(self, name, target):
        """The database as it is now, under another name. Nobody may be connected to it."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {target} TEMPLATE {name}")

    def rename(self, name, target):
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} RENAME TO {target}")

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()
