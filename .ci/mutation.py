#!/usr/bin/env python
"""Mutation testing of the core and of what decides, with mutmut ([tool.mutmut] in pyproject.toml): ``python .ci/mutation.py --sample 600``.

A run goes on where the last one stopped, and tests again what has changed. The figures stand in CONTRIBUTING.md; survivors that no test can
tell from the code are explained in .ci/equivalent-mutants.txt. mutmut needs a package laid out as it is imported, and leaves decorated
functions out; so it works on a copy, build/mutation, in which ``envs``, ``agents`` and ``scripts`` lie inside ``rlmix`` and a decorator is
an assignment after the function.
"""

import argparse
import ast
import difflib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from mutmut.stats import status_by_exit_code
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "mutation"
FIRST = ["rlmix.agents.analysis.x_credit_dilemma__mutmut_1"]
"""One mutant that few tests reach: before it, mutmut makes all of them, and learns which tests reach which function."""
TOGETHER = """

def pytest_collection_modifyitems(items):
    # mutmut names tests in any order: those of a file together, so that its fixtures are made once, and the quick files first
    import tomllib

    with open("pyproject.toml", "rb") as file:
        order = tomllib.load(file)["tool"]["mutmut"]["pytest_add_cli_args_test_selection"]
    items.sort(key=lambda item: (order.index(item.nodeid.partition("::")[0]), item.reportinfo()[1]))
"""
SURVIVED = ("survived", "no tests")


class Undecorated(cst.CSTTransformer):
    """``@decorator def name`` as ``def name`` and ``name = decorator(name)``."""

    def leave_FunctionDef(  # noqa: N802  (libcst's name)
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.FlattenSentinel[cst.BaseStatement]:
        decorators = [each.decorator for each in updated_node.decorators]
        if not decorators or any(m.matches(each, m.Name("staticmethod") | m.Name("classmethod")) for each in decorators):
            return updated_node
        value: cst.BaseExpression = updated_node.name
        for decorator in reversed(decorators):
            value = cst.Call(decorator, [cst.Arg(value)])
        assignment = cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(updated_node.name)], value)])
        return cst.FlattenSentinel([updated_node.with_changes(decorators=[]), assignment])


def lay_out() -> bool:
    """Bring the copy up to date, and say whether it was not; files that are as they were keep their time, and so what is known of them."""
    places = {"rlmix": "rlmix", "tests": "tests", "docs": "docs"}
    places |= {name: f"rlmix/{name}" for name in ("envs", "agents", "scripts")}
    files = [
        (file, COPY / place / file.relative_to(ROOT / name))
        for name, place in places.items()
        for file in (ROOT / name).rglob("*.*")
    ]
    changed = False
    for source, target in [*files, (ROOT / "pyproject.toml", COPY / "pyproject.toml")]:
        if "__pycache__" in source.parts or not source.is_file():
            continue
        content = source.read_bytes()
        if target.suffix == ".py" and COPY / "tests" not in target.parents:
            text = cst.parse_module(content).visit(Undecorated()).code
            content = re.sub(r"^( *def _?draw\w*\(.*:)$", r"\1  # pragma: no mutate block", text, flags=re.MULTILINE).encode()
        if target == COPY / "tests" / "conftest.py":
            content += TOGETHER.encode()
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            changed = True
    return changed


def results() -> dict[str, str]:
    """What became of each mutant, by its name."""
    codes: dict[str, int | None] = {}
    for file in sorted((COPY / "mutants").rglob("*.py.meta")):
        codes |= json.loads(file.read_text())["exit_code_by_key"]
    return {name: status_by_exit_code[code] for name, code in codes.items()}


def change(name: str) -> str:
    """``name: the lines that the mutant changes -> what it makes of them``."""
    module, _, function = name.rpartition(".")
    functions = _functions(module)
    names = (function.rpartition("_")[0] + "_orig", function)
    before, after = (functions[each].replace(each, "", 1).splitlines() for each in names)
    lines = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    old, new = ([line[2:].strip() for line in lines if line[0] == sign] for sign in "-+")
    return f"{name}: {' '.join(old)} -> {' '.join(new)}"


@cache
def _functions(module: str) -> dict[str, str]:
    source = (COPY / "mutants" / module.replace(".", "/")).with_suffix(".py").read_text()
    lines = source.splitlines()
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return {node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in nodes}


def equivalents() -> list[re.Pattern[str]]:
    """Regular expressions of changes (:func:`change`) that no test can tell from the code; what is indented below one says why."""
    lines = (ROOT / ".ci" / "equivalent-mutants.txt").read_text().splitlines()
    return [re.compile(line) for line in lines if line and not line.startswith(("#", " "))]


def report(sample: list[str] | None) -> None:
    """The score, module by module, of all mutants or of a sample of them, and the survivors that are not explained."""
    found, known = results(), equivalents()
    found = {name: found[name] for name in sample or found}
    for name, state in found.items():
        if state in SURVIVED and any(pattern.search(change(name)) for pattern in known):
            found[name] = "explained"
    modules: dict[str, Counter[str]] = {}
    for name, state in found.items():
        modules.setdefault(name.rpartition(".")[0], Counter())[state] += 1
    modules["all"] = Counter(found.values())
    for module, counts in modules.items():
        tested = counts.total() - counts["not checked"]
        good = sum(counts[state] for state in ("killed", "timeout", "segfault", "explained"))
        print(f"{module:28} {good:4} of {tested:4} killed or explained: {good / max(tested, 1):6.1%}  {dict(counts)}")
    if sample and tested:
        interval = binomtest(good, tested).proportion_ci(method="wilson")
        print(f"of all {len(results())} mutants, with 95 % confidence: {interval.low:.1%} to {interval.high:.1%}")
    for name, state in found.items():
        if state in SURVIVED:
            print(f"{state}: {change(name):.300}")


def main() -> None:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="only say what is known already")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn with a fixed seed; all where not given")
    parser.add_argument("--survivors", action="store_true", help="test those again that survived")
    parser.add_argument("names", nargs="*", help="mutants to test again, * for any")
    options = parser.parse_args()
    if not options.report and lay_out():
        run(FIRST)
    drawn = sorted(results())
    random.Random(0).shuffle(drawn)
    sample = drawn[: options.sample] if options.sample else None  # a larger one holds a smaller one
    if not options.report:
        wanted = ("not checked", *SURVIVED) if options.survivors else ("not checked",)
        found = results()
        run(options.names or [name for name in sample or found if found[name] in wanted])
    report(sample)


def run(names: list[str]) -> None:
    """Have mutmut make the mutants anew where a source has changed, and test those called so."""
    if names:
        subprocess.run([sys.executable, "-m", "mutmut", "run", "--max-children", "2", *names], cwd=COPY, check=True)


if __name__ == "__main__":
    main()
