"""Facts about the tests themselves."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
FOR_ALL = {"support", "bench", "manual"}
"""What any kind of test may import: helpers, and the programs that stand here."""


def imported(path):
    """Return the folders of tests/ that a module imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tests":
            names = [f"tests.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("tests."))


def test_no_kind_of_test_imports_from_another():
    """Modules in a folder of tests import from it and from what is for all; helpers from none."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        own = path.relative_to(TESTS).parts[0]
        allowed = FOR_ALL | {own}
        found += [f"{path} imports from {name}" for name in imported(path) if name not in allowed]

    assert found == []


def test_helpers_stand_alone():
    """Helpers of all tests import from no test, and from no program beside the tests."""
    found = {folder for path in TESTS.glob("support/**/*.py") for folder in imported(path)}

    assert found == {"support"}
