import doctest
import importlib
import pkgutil

import pytest

from converter import steps

MODULES = [f"converter.steps.{module.name}" for module in pkgutil.iter_modules(steps.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_hold(module: str) -> None:
    found = importlib.import_module(module)
    assert doctest.testmod(found).failed == 0
