"""numba's cache of machine code on disk, which a call does without where it fails: full, damaged, read-only."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, InTreeCacheLocator

from sc_ldvae.kernels._compiling import current

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("sc_ldvae")


class _BesideTheCode(InTreeCacheLocator):
    """The folder beside the code, also where nothing can be written to it."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], path: str) -> _BesideTheCode | None:
        """None where there is no file."""
        return cls(function, path) if Path(path).exists() else None


class _Sealed(CompileResultCacheImpl):
    """With a checksum of the machine code: what is not as it was written may do anything."""

    # Where numba looks for a folder, the last resort last.
    _locator_classes = [*CompileResultCacheImpl._locator_classes, _BesideTheCode]  # noqa: RUF012, SLF001

    def reduce(self, cres: Any) -> Any:
        reduced = super().reduce(cres)
        return _seal(reduced), reduced

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        seal, reduced = payload
        if seal != _seal(reduced):
            msg = "the machine code is not what was written"
            raise ValueError(msg)
        cres = super().rebuild(target_context, reduced)
        # What is linked with this has to start the threads, too, when it is loaded again: numba forgets that here.
        cres.library._reload_init.update(cres.reload_init)  # noqa: SLF001
        return cres


class Cache(FunctionCache):
    """What can't be loaded is compiled again; what can't be saved stays in memory.

    Kernels are kept where numba keeps them: in NUMBA_CACHE_DIR, beside the code, or in a folder of the user. Beside the
    code they are looked for in any case, for whoever installed the package may have compiled them for all.
    """

    _impl_class = _Sealed

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._kernel = function.__name__
        folder = str(Path(function.__code__.co_filename).parent / "__pycache__")
        stamp = self._impl.locator.get_source_stamp()
        self._installed = IndexDataCacheFile(folder, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code, or None."""
        look = partial(self._look, sig, target_context)
        found, compilation = look(), current()
        if found is None and compilation is not None:
            found = compilation.begin(self._kernel, look)
            if found is not None:
                compilation.end()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the machine code if possible."""
        compilation = current()
        if compilation is not None:
            compilation.end()
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001  as below
            self._tell("written", error)
            _unkept.tell(self.cache_path, error)

    def _look(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
            return self._load_installed(sig, target_context) if found is None else found
        # Damaged bytes raise anything.
        except Exception as error:  # noqa: BLE001
            self._tell("read", error)
        try:
            # An index that can't be read would keep the next one from being written.
            self.flush()
        except OSError as error:
            self._tell("emptied", error)
        return None

    def _load_installed(self, sig: Any, target_context: Any) -> Any:
        found = self._installed.load(self._index_key(sig, target_context.codegen()))
        return None if found is None else self._impl.rebuild(target_context, found)

    def _tell(self, done: str, error: Exception) -> None:
        what = "The kernels' cache in %s can't be %s (%s: %s): compiled in memory."
        _log.debug(what, self.cache_path, done, type(error).__name__, error)


class _Unkept:
    """Says once in a process that what it compiles is lost with it."""

    said = False

    def tell(self, folder: str, error: Exception) -> None:
        if not self.said:
            self.said = True
            _log.warning(
                "Compiled kernels can't be kept in %s (%s), so every process compiles them again. Set NUMBA_CACHE_DIR "
                "to a folder that can be written to and lasts, or let whoever installed sc_ldvae run "
                "'python -m sc_ldvae compile'.",
                folder,
                error,
            )


_unkept = _Unkept()


def _seal(reduced: Any) -> bytes:
    library = reduced[0]
    return hashlib.sha256(repr(library).encode()).digest()
