"""How loops are compiled, and where what was compiled is kept.

numba keeps compiled code by the time stamp of the one file that a function stands in; what that function calls in other
files may change without a trace. Here the key holds the content of every file that goes into the loops. Keeping is a
convenience: where there is no place for it, loops are compiled anew in each process.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import FunctionCache

from elslightning.system.errors import warn

COMPILING = not config.DISABLE_JIT  # type: ignore[attr-defined]
"""Whether loops are compiled at all; NUMBA_DISABLE_JIT=1 says no, and as plain Python they cannot run."""


def compiled(function: Any) -> Any:
    """A function compiled when it is first called, without the interpreter's lock, and kept for later processes."""
    return _compiled(function, no_cfunc_wrapper=True)


def inner(function: Any) -> Any:
    """The same for one that only compiled functions call: how Python would call it is not compiled, which takes as long
    as a loop does."""
    return _compiled(function, no_cfunc_wrapper=True, no_cpython_wrapper=True)


def _compiled(function: Any, **options: Any) -> Any:
    made: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)
    if COMPILING:
        try:
            made._cache = _Cache(function)
        except (RuntimeError, OSError):  # no place for it: an installation and a home that are read-only
            _without()
    return made


@cache
def fingerprint() -> str:
    """Of the files that loops are made of: themselves, the vectors they use, and this one."""
    here = Path(__file__)
    files = [here, here.with_name("lanes.py"), *sorted(here.parent.glob("*loops.py"))]
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


class _Cache(FunctionCache):
    """Compiled code by everything it was made of."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), fingerprint())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever a damaged file raises: it is compiled anew
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # a full disk, a quota
            _without()


@cache
def _without() -> None:
    """Says once that nothing is kept."""
    warn("compiled code cannot be kept, so every process compiles its own: NUMBA_CACHE_DIR may name a place for it")
