"""Change a function of the product by its text, so that a mutant says just what it breaks.

The function is compiled anew in its module, with one piece of its source replaced. The piece
must be there exactly once: when the product changes, the mutant fails until it follows.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest

Break = Callable[[pytest.MonkeyPatch], None]
"""What a mutant is: it edits the product, as long as the patch lasts."""

_FLAGS = __future__.annotations.compiler_flag


class EditFailed(AssertionError):
    """The text to be replaced is not there, or more than once."""


def edit(
    patch: pytest.MonkeyPatch, owner: type | ModuleType, name: str, old: str, new: str
) -> None:
    """Replace `old` in the source of `owner.name` by `new`. Line breaks and indents in `old` and
    in the source may differ; `new` is one expression or statement, or several with `;`."""
    found = inspect.getattr_static(owner, name)
    function = _function(found)
    source = getattr(function, "edited", None) or _flat(inspect.getsource(function))
    old = _flat(old)
    if source.count(old) != 1:
        raise EditFailed(f"{name} has {source.count(old)} times {old!r}; its text is\n{source}")
    source = _flat(source.replace(old, new))
    code = compile(source, inspect.getfile(function), "exec", _FLAGS, True)
    names: dict[str, Any] = {}
    exec(code, function.__globals__, names)
    changed = names[function.__name__]  # decorated as in the source
    _function(changed).edited = source  # type: ignore[attr-defined]  for a second edit
    patch.setattr(owner, name, changed)


def edit_everywhere(
    patch: pytest.MonkeyPatch, name: str, old: str, new: str, *modules: ModuleType
) -> None:
    """The same for a module's function, and for those that import it by name."""
    edit(patch, modules[0], name, old, new)
    for module in modules[1:]:
        patch.setattr(module, name, getattr(modules[0], name))


def _function(found: object) -> FunctionType:
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    assert isinstance(found, FunctionType), found
    return found


def _flat(source: str) -> str:
    """The source as the compiler sees it: one line a statement, no comments."""
    return ast.unparse(ast.parse(textwrap.dedent(source))) if _parses(source) else source


def _parses(source: str) -> bool:
    try:
        ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return False
    return True
