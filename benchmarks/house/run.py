"""How large the house is, and how straight: the numbers of docs/architecture.md.

    python benchmarks/house/run.py                  (of the tree it stands in)
    python benchmarks/house/run.py --tree FOLDER    (of another checkout, such as that of an older commit)

A module is a file of src/trimtab that says something. The longest import chain is of imports at the top of modules; a deferred
cycle is a set of modules that import each other once the imports inside of functions count too. The hours and scores of
other benchmarks are no part of this one, so there is no results table: the page holds it.
"""

import argparse
import ast
import subprocess
from functools import cache
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2])
    tree = parser.parse_args().tree.resolve()
    files = sorted(path for path in (tree / "src/trimtab").rglob("*.py") if path.read_text().strip())
    texts = {_name(path, tree): path.read_text() for path in files}
    packages = {_name(path, tree) for path in files if path.name == "__init__.py"}
    top = {name: _imports(name, text, texts, packages, deferred=False) for name, text in texts.items()}
    every = {name: _imports(name, text, texts, packages, deferred=True) for name, text in texts.items()}
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=tree, text=True).split("\0")
    print(f"modules                           {len(texts)}")
    print(f"source lines                      {sum(text.count(chr(10)) for text in texts.values()):,}")
    print(f"files over 400 lines              {sum(text.count(chr(10)) > 400 for text in texts.values())}")
    print(f"longest import chain              {longest_chain(top)}")
    print(f"deferred cycles                   {len(cycles(every))}")
    print(f"signatures with `model: Any`      {sum(map(_signatures_with_any_model, texts.values()))}")
    print(f"modules that ask for LoRA by name {', '.join(n for n, t in texts.items() if _asks_for_lora(t)) or 'none'}")
    print(f"tracked bytes                     {sum((tree / name).stat().st_size for name in tracked if name):,}")
    print(f"README words                      {len((tree / 'README.md').read_text().split())}")


def _name(path: Path, tree: Path) -> str:
    """The dotted name of the module in `path`, without the package's own."""
    parts = path.relative_to(tree / "src/trimtab").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, text: str, known: dict[str, str], packages: set[str], *, deferred: bool) -> set[str]:
    """The modules of the house that the module `name` imports: at its top, or anywhere. Those for type checkers never count."""
    found = set()
    for node in _statements(ast.parse(text), deferred=deferred):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        above = name.split(".") if name in packages else name.split(".")[:-1]
        base = ".".join([*above[: len(above) - node.level + 1], *([node.module] if node.module else [])])
        for each in node.names:
            inner = f"{base}.{each.name}" if base else each.name
            found.add(inner if inner in known else base)
    return (found & known.keys()) - {name}


def _statements(tree: ast.AST, *, deferred: bool) -> list[ast.AST]:
    """All statements that run on import, or with `deferred` those of functions as well."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found.append(node)
        if deferred or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += _statements(node, deferred=deferred)
    return found


def longest_chain(imports: dict[str, set[str]]) -> int:
    """How many modules the longest chain of imports has."""

    @cache
    def length(name: str) -> int:
        return 1 + max(map(length, imports[name]), default=0)

    return max(map(length, imports))


def cycles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The sets of several modules each of which reaches all others of its set."""

    @cache
    def reached(name: str) -> frozenset[str]:
        seen, todo = set(), [name]
        while todo:
            new = imports[todo.pop()] - seen
            seen |= new
            todo += new
        return frozenset(seen)

    sets = {frozenset(other for other in reached(name) if name in reached(other)) for name in imports}
    return [set(each) for each in sets if len(each) > 1]


def _signatures_with_any_model(text: str) -> int:
    """How many functions take a model of any type."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    arguments = [{each.arg: each.annotation for each in node.args.args} for node in functions]
    return sum(isinstance(kind := each.get("model"), ast.Name) and kind.id == "Any" for each in arguments)


def _asks_for_lora(text: str) -> bool:
    """Whether the code names LoRA's class, its kind of parameters or its modules, comments and docstrings apart."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name | ast.Attribute) and "lora" in ast.unparse(node).lower():
            return True
        if isinstance(node, ast.Compare) and any(
            isinstance(each, ast.Constant) and isinstance(each.value, str) and "lora" in each.value.lower()
            for each in node.comparators
        ):
            return True
    return False


if __name__ == "__main__":
    main()
