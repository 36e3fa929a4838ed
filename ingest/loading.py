"""A domain by its name, `module:attribute`, as a setting has it."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from ingest.domain import Domain
from ingest.errors import DomainInvalid, FoldlogError, one_line


def load_domain(name: str) -> Domain:
    """The domain at `module:attribute`, also from the current folder. Raises `DomainInvalid`."""
    module_name, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise DomainInvalid(f"{name!r} names no domain; write it as module:attribute")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: a user's pipeline.py must not shadow ours
    try:
        module = importlib.import_module(module_name)
    except FoldlogError:
        raise
    except Exception as error:  # anything that the user's module does when it is imported
        raise DomainInvalid(f"cannot import the domain {name!r}: {_located(error)}") from None
    domain = getattr(module, attribute, None)
    if not isinstance(domain, Domain):
        raise DomainInvalid(f"{module_name} has no Domain named {attribute!r}")
    domain.__dict__["module"] = module_name
    return domain


def _located(error: Exception) -> str:
    """An error that code of a user has raised: which, and where."""
    if isinstance(error, ModuleNotFoundError | SyntaxError):
        return one_line(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {one_line(error)} ({last.filename}, line {last.lineno})"
