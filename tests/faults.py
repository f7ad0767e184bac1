"""The faults that a night survives: `python -m tests.faults` writes docs/faults.md.

Rows are those of faults.toml. A row has the tests that are marked with its id, `@pytest.mark.fault("<id>")`; the page says
their names.
"""

import ast
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/faults.md"
ROWS: dict[str, dict[str, str]] = tomllib.loads((TESTS / "faults.toml").read_text(encoding="utf-8"))
"""By id: what is done (`fault`), what happens (`outcome`), and what is not so (`limits`)."""

HEAD = """# Faults: what is done to a night, and what comes of it

Each row is made from the tests that inject its fault, on real Spark, Delta, DeepSpeed, Airflow, processes and file systems.
`make faults` runs them all; cut off, it goes on with those that have not passed. Those that are not *slow* are part of
`make test`. `python -m tests.faults` writes this page.
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A test that injects a fault."""

    file: str
    name: str
    slow: bool


def shown(tests: Path = TESTS) -> dict[str, list[Shown]]:
    """Tests by the id of the row that they are marked with.

    Raises:
        ValueError: a mark names no row.
    """
    found: dict[str, list[Shown]] = {row: [] for row in ROWS}
    for file in sorted(tests.glob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        whole = [mark for node in tree.body if _assigns_marks(node) for mark in ast.walk(node)]
        all_slow = any(_is_mark(node, "slow") for node in whole)
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            slow = all_slow or any(_is_mark(node, "slow") for node in function.decorator_list)
            for row in _rows_of([*whole, *function.decorator_list]):
                if row not in found:
                    raise ValueError(f"{file.name}: {function.name} is marked with fault {row!r}, which is no row")
                if function.name.startswith("test_"):
                    found[row].append(Shown(file.name, function.name, slow))
    return found


def page() -> str:
    """The text of docs/faults.md."""
    tests = shown()
    lines = [HEAD, "| fault | what happens | tests | slow ones |", "|---|---|---|---|"]
    for name, row in ROWS.items():
        counts = [sum(test.slow == slow for test in tests[name]) for slow in (False, True)]
        lines.append(f"| [{row['fault']}](#{name}) | {row['outcome']} | {counts[0]} | {counts[1]} |")
    for name, row in ROWS.items():
        lines += ["", f"## {name}", "", f"{row['fault'][0].upper()}{row['fault'][1:]}: {row['outcome']}.", ""]
        lines += [f"Limits: {row['limits']}.", ""] if "limits" in row else []
        lines += [f"- {_sentence(test)}" for test in tests[name]]
    return "\n".join(lines) + "\n"


def _sentence(test: Shown) -> str:
    said = test.name.removeprefix("test_").replace("_", " ")
    return f"{said} (`{test.file}`{', slow' if test.slow else ''})"


def _assigns_marks(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)


def _is_mark(node: ast.AST, name: str) -> bool:
    return ast.unparse(node) == f"pytest.mark.{name}" if isinstance(node, ast.expr) else False


def _rows_of(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Call) and _is_mark(node.func, "fault"):
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
