"""The sizes and names that the source keeps to, and the exceptions with their reasons.

A function's lines are those from `def` to its end less its docstring: what a public docstring must
say (arguments, shapes, errors) does not make the code longer. `self` and `cls` are no parameters.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "terradelta"
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_FILE = 500
MOST_PARAMETERS = 7

VERB = "a parameter is a flag of the verb, and cyclopts reads them from the signature"
FUNCTION_OF_A_VERB = "a keyword is an option of the verb of the same name; nothing else shares them"
OWN_VALUES = "the options that verbs share are values already; these are its own"
LONG_FUNCTIONS: dict[str, str] = {}
MANY_PARAMETERS = {
    "cli/dataset_verbs.py compose": VERB,
    "cli/dataset_verbs.py synth": VERB,
    "cli/learning_verbs.py evaluate": VERB,
    "cli/learning_verbs.py pseudo_label": VERB,
    "cli/map_verbs.py predict": VERB,
    "cli/view_verbs.py view": VERB,
    "data/composite/composed_pairs.py compose": FUNCTION_OF_A_VERB,
    "data/synthetic/files.py synth": FUNCTION_OF_A_VERB,
    "data/synthetic/files.py write_geotiff_pair": "the options of `synth`, for a pair of any size",
    "evaluation/model_scores.py compare_models": OWN_VALUES,
    "evaluation/model_scores.py evaluate": OWN_VALUES,
    "inference/stream.py answer_blocks": "what is asked and by which means; one place calls it",
    "mapping/run.py predict": OWN_VALUES,
    "training/rounds.py pseudo_label": FUNCTION_OF_A_VERB,
}
SHARED_NAMES: dict[str, str] = {}
"""Exceptions by place, or by the name of a class, with their reason."""


def parse_source() -> Iterator[tuple[str, str, ast.Module]]:
    """Yield path, text and tree of each file."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(SOURCE).as_posix(), text, ast.parse(text)


def list_functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, _, tree in parse_source():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path} {node.name}", node


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def count_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    found = function.args
    named = [*found.posonlyargs, *found.args, *found.kwonlyargs]
    is_method = bool(named) and named[0].arg in ("self", "cls")
    return len(named) + (found.vararg is not None) + (found.kwarg is not None) - is_method


@pytest.mark.parametrize(
    ("measure", "most", "exceptions"),
    [
        (count_lines, MOST_LINES_OF_A_FUNCTION, LONG_FUNCTIONS),
        (count_parameters, MOST_PARAMETERS, MANY_PARAMETERS),
    ],
)
def test_functions_fit_a_screen_and_take_few_parameters(measure, most, exceptions):
    over = {place: measure(node) for place, node in list_functions() if measure(node) > most}
    assert over.keys() - exceptions.keys() == set(), over
    # An exception that nothing needs any more is taken out.
    assert exceptions.keys() - over.keys() == set()


def test_files_are_short():
    lines = {path: len(text.splitlines()) for path, text, _ in parse_source()}
    assert {path: n for path, n in lines.items() if n > MOST_LINES_OF_A_FILE} == {}


def test_modules_and_packages_have_names_of_their_own():
    places = defaultdict(list)
    for path, _, _ in parse_source():
        parts = Path(path).with_suffix("").parts
        name = parts[-2] if parts[-1] == "__init__" and len(parts) > 1 else parts[-1]
        if name not in ("__init__", "__main__"):
            places[name].append(path)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_classes_have_names_of_their_own():
    places = defaultdict(list)
    for path, _, tree in parse_source():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert shared.keys() - SHARED_NAMES.keys() == set(), shared
    assert SHARED_NAMES.keys() - shared.keys() == set()


def test_no_private_name_of_another_package_is_imported():
    for path, _, tree in parse_source():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                is_own = node.level > 0 or module.partition(".")[0] in ("terradelta", "__future__")
                parts = [*module.split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                is_own = all(alias.name.startswith("terradelta") for alias in node.names)
                parts = [part for alias in node.names for part in alias.name.split(".")]
            else:
                continue
            private = [part for part in parts if part.startswith("_")]
            assert is_own or not private, f"{path}:{node.lineno} imports {', '.join(private)}"
