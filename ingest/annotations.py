"""What a rule says of itself by its annotations: the classes that a parameter may have."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from ingest.errors import DomainInvalid, one_line

RETURN = "return"


def parameter(function: Callable[..., Any], place: int, where: str) -> Any:
    """The annotation of the parameter at `place` of a rule, which takes two.

    Raises `DomainInvalid`, which begins `where`.
    """
    if not callable(function):
        raise DomainInvalid(f"{where}: {type(function).__name__} is no function")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise DomainInvalid(f"{where}: {name_of(function)} is async; rules wait for nothing")
    signature = inspect.signature(function)
    names = [*signature.parameters]
    try:
        signature.bind(None, None)
    except TypeError:
        raise DomainInvalid(
            f"{where}: {name_of(function)} has {len(names)} parameters, and needs 2"
        ) from None
    return _annotation(function, names[place], where)


def returned(function: Callable[..., Any], where: str) -> Any:
    """The annotation of what it returns. Raises `DomainInvalid`, which begins `where`."""
    return _annotation(function, RETURN, where)


def classes(annotation: Any, where: str) -> tuple[type, ...]:
    """A union's classes, or one. Raises `DomainInvalid` where a part is no class."""
    found = tuple(parts(annotation))
    for part in found:
        if not isinstance(part, type):
            raise DomainInvalid(f"{where}: {part} is no class")
    return found


def _annotation(function: Callable[..., Any], name: str, where: str) -> Any:
    plain = function
    while isinstance(plain, partial):
        plain = plain.func
    what = f"what {name_of(plain)} returns" if name == RETURN else f"{name_of(plain)}({name})"
    try:
        hints = get_type_hints(plain)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DomainInvalid(
            f"{where}: {name_of(plain)}: {one_line(error)}; annotations name what a module has"
        ) from None
    if name not in hints:
        raise DomainInvalid(f"{where}: {what} needs an annotation: a class, or a union of some")
    return hints[name]


def parts(annotation: Any) -> Iterator[Any]:
    """What a union is of, also one within another; or the annotation itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from parts(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from parts(part)
    elif hasattr(annotation, "__value__"):  # type X = A | B
        yield from parts(annotation.__value__)
    else:
        yield annotation


def name_of(function: Any) -> str:
    """What a rule is called; a partial one is called as the whole."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def is_text(annotation: Any) -> bool:
    """Whether every value of that type is text."""
    for part in parts(annotation):
        if get_origin(part) is Literal:
            texts = all(isinstance(value, str) for value in get_args(part))
        elif isinstance(part, NewType):
            texts = is_text(part.__supertype__)
        else:
            texts = isinstance(part, type) and issubclass(part, str)
        if not texts:
            return False
    return True
