"""Signatures checked by beartype, with the dimensions of jaxtyping, once for each call.

jaxtyping's own decorator checks the arguments of every call twice and binds them besides, and makes two functions for
every signature of a module that is imported. Where functions are called often that takes most of the time.
"""

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin

import beartype
import jaxtyping

_jaxtyped = jaxtyping.jaxtyped
_scope = _jaxtyped("context")
# An int will do where a float is asked for, as in Python's own typing.
_beartype = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
_made: dict[Any, types.FunctionType] = {}


def checked(function: Any = None, *, typechecker: Any = None) -> Any:
    """In place of `jaxtyping.jaxtyped`: the function, checked by what is made when it is first called."""
    if function is None:
        return checked
    if isinstance(function, type):
        if is_dataclass(function) and function.__init__.__globals__ is not globals():
            function.__init__ = checked(function.__init__)
        return function
    if not isinstance(function, types.FunctionType) or inspect.isgeneratorfunction(function):
        return _jaxtyped(function, typechecker=_beartype)
    if not function.__annotations__:
        return function
    check: Callable[..., Any] | None = None
    scoped = True

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        nonlocal check, scoped
        if jaxtyping.config.jaxtyping_disable:
            return function(*arguments, **options)
        if check is None:
            check = _with_check(function)
            scoped = any(_has_dimensions(_meant(hint, function)) for hint in function.__annotations__.values())
        if not scoped:
            return check(*arguments, **options)
        with _scope:
            return check(*arguments, **options)

    return call


def _with_check(function: types.FunctionType) -> Callable[..., Any]:
    """A function with its check. Those within functions come again whenever the outer one is called: the check that was
    made for one with an equal signature then calls the one of now."""
    if "<locals>" not in function.__qualname__:
        return _beartyped(function)
    key = (function.__code__, tuple(function.__annotations__.items()))
    try:
        made = _made[key] if key in _made else _made.setdefault(key, _beartyped(function))
    except TypeError:  # an annotation that cannot be looked up
        return _beartyped(function)
    if "__beartype_func" not in (made.__kwdefaults__ or {}):
        return _beartyped(function)
    again = types.FunctionType(made.__code__, made.__globals__, made.__name__, made.__defaults__, made.__closure__)
    again.__kwdefaults__ = made.__kwdefaults__ | {"__beartype_func": function}
    return again


def _beartyped(function: types.FunctionType) -> Any:
    """By beartype, but for names in quotes that mean nothing when the program runs: those imported for mypy alone."""
    written = function.__annotations__
    function.__annotations__ = {name: _meant(hint, function) for name, hint in written.items()}
    try:
        return _beartype(function)
    finally:
        function.__annotations__ = written


def _has_dimensions(hint: Any) -> bool:
    """Whether a hint may name dimensions, which mean the same in a whole call and nothing beyond it."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return issubclass(hint, jaxtyping.AbstractArray)
    if hint is None or hint is Any or hint is Ellipsis:
        return False
    if isinstance(hint, list | tuple):  # the arguments of a callable
        return any(_has_dimensions(part) for part in hint)
    parts = get_args(hint)
    return get_origin(hint) is not Literal and (not parts or any(_has_dimensions(part) for part in parts))


def _meant(hint: Any, function: types.FunctionType) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, function.__globals__)
    except NameError:
        return Any
