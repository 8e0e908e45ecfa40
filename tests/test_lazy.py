"""Names that a package has before it imports what is behind them."""

import subprocess
import sys

import pytest

from triscale.lazy import on_demand


def test_a_name_is_found_kept_and_listed() -> None:
    within: dict[str, object] = {"__name__": "here"}
    find, known = on_demand({"gcd": "math", "root": ("math", "sqrt")}, within)
    assert known() == ["__name__", "gcd", "root"]
    assert (find("gcd"), find("root")) == (__import__("math").gcd, __import__("math").sqrt)
    assert within["gcd"] is find("gcd")
    with pytest.raises(AttributeError, match="'here' has no attribute 'lost'"):
        find("lost")


def test_a_name_that_a_module_of_the_package_has_too_is_refused() -> None:
    with pytest.raises(ValueError, match="here: a is one of its modules too"):
        on_demand({"a": "here.a"}, {"__name__": "here"})


def test_what_is_served_is_the_same_whichever_module_came_first() -> None:
    program = "import triscale.serving.replicas; from triscale.serving import application; assert callable(application)"
    subprocess.run([sys.executable, "-c", program], check=True)
