"""Names of a package that are imported when somebody asks for them: importing the package alone stays quick."""

from collections.abc import Callable, Mapping
from importlib import import_module


def on_demand(
    names: Mapping[str, str | tuple[str, str]], within: dict[str, object]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    names: to each the module that has it, and the name that it has there where that is another. within: the package's
    globals; what was asked for once is kept there. Raises `ValueError` for a name that a module of the package has too:
    whoever imports that module first would find it in the place of what is meant.
    """
    for name in names:
        if f"{within['__name__']}.{name}" in [
            place if isinstance(place, str) else place[0] for place in names.values()
        ]:
            raise ValueError(f"{within['__name__']}: {name} is one of its modules too")

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
