"""The notebooks that are shipped: every cell runs, from top to bottom, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import environment

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))
# What a kernel does: the cells one after the other; of each, the last expression is shown.
KERNEL = """
import ast, json, sys
names = {"__name__": "__main__"}
sys.path.insert(0, "")
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] != "code":
        continue
    tree = ast.parse("".join(cell["source"]))
    *_, last = tree.body
    shown = isinstance(last, ast.Expr)
    if shown:
        tree.body.pop()
    exec(compile(tree, f"cell {number}", "exec"), names)
    if shown:
        value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        print(f"[{number}]", repr(value))
"""
SAID = {
    "look_at_a_run": ["demo: keep image_text_similarity/high", "report.html"],
    "own_data": ["trials.sedes: unknown key; did you mean 'seeds'?", "text_length_filter"],
    "own_evaluator": ["nearer_than_next", "own-evaluator: "],
}


def test_all_notebooks_are_known() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(SAID)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_a_run_is_kept_in_it(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), path.name, "exec")


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KERNEL, str(path)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for said in SAID[path.stem]:
        assert said in done.stdout
