"""Names of a package that are imported when somebody asks for them: importing the package alone stays quick."""

from collections.abc import Callable, Mapping
from importlib import import_module


def on_demand(
    names: Mapping[str, str | tuple[str, str]], within: dict[str, object]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    names: to each the module that has it, and the name that it has there where that is another. within: the package's
    globals; what was asked for once is kept there.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {within['__name__']!r} has no attribute {name!r}")
        place = names[name]
        module, own = (place, name) if isinstance(place, str) else place
        within[name] = getattr(import_module(module), own)
        return within[name]

    def known() -> list[str]:
        return sorted({*within, *names})

    return find, known
