"""numba's cache of machine code on disk, which a call does without where it fails: full, damaged, read-only."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache

_log = logging.getLogger("sc_ldvae")


class _Sealed(CompileResultCacheImpl):
    """With a checksum of the machine code: what is not as it was written may do anything."""

    def reduce(self, cres: Any) -> Any:
        reduced = super().reduce(cres)
        return _seal(reduced), reduced

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        seal, reduced = payload
        if seal != _seal(reduced):
            msg = "the machine code is not what was written"
            raise ValueError(msg)
        return super().rebuild(target_context, reduced)


class Cache(FunctionCache):
    """What can't be loaded is compiled again; what can't be saved stays in memory."""

    _impl_class = _Sealed

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code, or None."""
        try:
            return super().load_overload(sig, target_context)
        # Damaged bytes raise anything.
        except Exception as error:  # noqa: BLE001
            self._tell("read", error)
        try:
            # An index that can't be read would keep the next one from being written.
            self.flush()
        except OSError as error:
            self._tell("emptied", error)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the machine code if possible."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001  as above
            self._tell("written", error)

    def _tell(self, done: str, error: Exception) -> None:
        what = "The kernels' cache in %s can't be %s (%s: %s): compiled in memory."
        _log.debug(what, self.cache_path, done, type(error).__name__, error)


def _seal(reduced: Any) -> bytes:
    library = reduced[0]
    return hashlib.sha256(repr(library).encode()).digest()
