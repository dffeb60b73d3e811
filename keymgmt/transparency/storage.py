"""Where a log lives: a small protocol, and its form for object stores through fsspec (S3 and what speaks like it).

Tiles are written once and never change, so that they may be cached for ever. The checkpoint
is the only object that changes; it only grows. On S3 it is replaced on the condition that it
is still the one that was read (If-Match), so that of two writers one is refused.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import urlsplit

from crds.errors import InvalidInput, Unavailable
from keymgmt.transparency.errors import LogCorrupt, LogFenced, LogRolledBack
from keymgmt.transparency.note import parse_checkpoint, split_note
from keymgmt.transparency.tiles import tile_path

_PARALLEL_WRITES = 8
_CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


class LogStore(Protocol):
    """Storage of one log: one writer at a time, readers without a lock."""

    @property
    def location(self) -> str:
        """Folder or URL, for messages."""

    def read(self, path: str) -> bytes | None:
        """The bytes under a path such as `checkpoint` or `tile/0/000`; None if there is nothing."""

    def write_new(self, files: Mapping[str, bytes]) -> None:
        """Write each once, durable on return; the same bytes again are no change. Raises LogCorrupt otherwise."""

    def replace(self, path: str, content: bytes) -> None:
        """Replace the checkpoint, whole and durable."""

    def drop_partials(self, level: int | str, index: int) -> None:
        """Remove the partial tiles that a full tile has made useless."""


class ObjectTiles:
    """A log under a prefix of an object store. `options` go to fsspec (endpoint, region, …).

    Credentials come from the environment, as the store's library finds them. `cache_bytes`
    bounds the memory that full tiles take; partial tiles and the checkpoint are not cached.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, cache_bytes: int = 64 << 20) -> None:
        """Raises InvalidInput for a URL of no known store. Does not connect."""
        import fsspec  # type: ignore[import-untyped]  # here: a log on files needs no driver

        self.location = url.rstrip("/")
        scheme = urlsplit(url).scheme
        given = {"use_listings_cache": False, **(options or {})} if scheme == "s3" else dict(options or {})
        try:
            self._files, prefix = fsspec.core.url_to_fs(self.location, **given)
        except (ImportError, ValueError) as error:
            raise InvalidInput(
                f"the log's object store cannot be used: {error}", where=url, fix="install kekkai[s3], or check the URL"
            ) from None
        self._prefix = str(prefix).rstrip("/")
        self._conditional = scheme == "s3"
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached, self._bound = 0, cache_bytes
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes | None:
        with self._lock:
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path]
        content = self._fetch(path)
        if content is not None and path.startswith("tile/") and ".p/" not in path:
            self._keep(path, content)
        return content

    def write_new(self, files: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(_PARALLEL_WRITES) as pool:
            for done in [pool.submit(self._create, path, content) for path, content in files.items()]:
                done.result()

    def replace(self, path: str, content: bytes) -> None:
        condition = self._unchanged(path, content)
        try:
            self._files.pipe_file(self._key(path), content, **condition)
        except Exception as error:
            if _is_conflict(error):
                raise LogFenced("another writer replaced the checkpoint", where=self.location) from None
            raise self._failed(error) from None

    def drop_partials(self, level: int | str, index: int) -> None:
        folder = self._key(f"{tile_path(level, index)}.p")
        try:
            for name in self._files.ls(folder, detail=False):
                self._files.rm_file(name)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._failed(error) from None

    def _unchanged(self, path: str, content: bytes) -> dict[str, str]:
        """The condition of a replacement. Raises LogRolledBack if it would make the log shorter."""
        condition: dict[str, str] = {}
        if self._conditional:
            try:
                self._files.invalidate_cache()
                condition["IfMatch"] = self._files.info(self._key(path))["ETag"]
            except FileNotFoundError:
                condition["IfNoneMatch"] = "*"
            except Exception as error:
                raise self._failed(error) from None
        present = self._fetch(path)
        if present is not None:
            old, new = (parse_checkpoint(split_note(note)[0]) for note in (present, content))
            if old.size > new.size:
                raise LogRolledBack(
                    f"a checkpoint of {old.size} entries would be replaced by one of {new.size}", where=self.location
                )
        return condition

    def _create(self, path: str, content: bytes) -> None:
        try:
            if self._conditional:
                self._files.pipe_file(self._key(path), content, IfNoneMatch="*")
            elif (present := self._fetch(path)) is None:
                self._files.pipe_file(self._key(path), content)
            elif present != content:
                raise LogCorrupt("a published tile would change", where=path, fix="restore the log")
        except LogCorrupt:
            raise
        except Exception as error:
            if not _is_conflict(error):
                raise self._failed(error) from None
            if self._fetch(path) != content:
                raise LogCorrupt("a published tile would change", where=path, fix="restore the log") from None

    def _fetch(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(self._key(path)))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed(error) from None

    def _keep(self, path: str, content: bytes) -> None:
        with self._lock:
            if path in self._cache:
                return
            self._cache[path] = content
            self._cached += len(content)
            while self._cached > self._bound and self._cache:
                self._cached -= len(self._cache.popitem(last=False)[1])

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, (LogCorrupt, Unavailable)):
            return error
        return Unavailable(
            f"the log's object store does not answer: {type(error).__name__}", where=self.location, fix="retry later"
        )


def _is_conflict(error: BaseException | None) -> bool:
    """Whether a store refused because its object is there already, or is another than expected."""
    while error is not None:
        answer = getattr(error, "response", None)
        code = str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
        if isinstance(error, FileExistsError) or code in _CONFLICTS:
            return True
        error = error.__cause__
    return False
