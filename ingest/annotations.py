"""What a rule says of itself by its annotations: the classes that a parameter may have."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from ingest.errors import DomainInvalid, one_line

RETURN = "return"


def parameter(function: Callable[..., Any], place: int, where: str) -> Any:
    """The annotation of the parameter at `place`. Raises `DomainInvalid`, which begins `where`."""
    names = [*inspect.signature(function).parameters]
    if len(names) <= place:
        raise DomainInvalid(
            f"{where}: {_name(function)} has {len(names)} parameters, and needs {place + 1}"
        )
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
    what = f"what {_name(plain)} returns" if name == RETURN else f"{_name(plain)}({name})"
    try:
        hints = get_type_hints(plain)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DomainInvalid(
            f"{where}: {_name(plain)}: {one_line(error)}; annotations name what a module has"
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


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function))
