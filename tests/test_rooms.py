"""The rooms of the design, enforced by reading syntax trees: who may import what, who may open files, which names say nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
NETWORK = {"openai", "httpx", "requests", "urllib", "socket", "aiohttp", "starlette", "uvicorn", "huggingface_hub", "datasets"}
TORCH = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "safetensors"}
IMPURE = {"os", "io", "pathlib", "shutil", "subprocess", "tempfile", "glob", "time", "datetime", "threading", "asyncio"}
INSIDE = {"tasks", "flows"}
BETWEEN = {"tasks.stage", "tasks.pace", "tasks.foresee", "tasks.watch", "tasks.desk"}  # what skins share and Prefect must know of

ROOMS: dict[str, tuple[str, set[str], set[str]]] = {
    # room: (files, outside packages it may never import, rooms of ours that it may import)
    "contracts": ("tasks/contracts/*.py", {"prefect", *TORCH, *NETWORK}, {"tasks.contracts"}),
    "logic": ("tasks/logic/**/*.py", {"prefect", *TORCH, *NETWORK, *IMPURE}, {"tasks.logic", "tasks.contracts"}),
    "training": ("tasks/training/*.py", {"prefect", *(NETWORK - {"datasets", "socket"})}, {"tasks.training", "tasks.logic", "tasks.contracts"}),
    # (the socket is a pair between two processes: it hands over files)
    "gateways": ("tasks/gateways/*.py", {"prefect", *TORCH}, {"tasks.gateways", "tasks.logic", "tasks.contracts"}),
    "skins": ("tasks/*.py", {*TORCH, *NETWORK}, {*BETWEEN, "tasks.gateways", "tasks.logic", "tasks.contracts", "tasks.training"}),
    "flows": ("flows/*.py", {*TORCH, *NETWORK, "pandas", "pyarrow"}, {"flows", "tasks.contracts", "tasks.stage"}),
}


def files(pattern: str) -> list[Path]:
    return [path for path in sorted(PROJECT.glob(pattern)) if path.name != "__init__.py" or path.stat().st_size]


def imports(tree: ast.AST) -> set[str]:
    """Dotted names of everything imported anywhere in a tree."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


CASES = [(room, path) for room, (pattern, _, _) in ROOMS.items() for path in files(pattern)]


@pytest.mark.parametrize(("room", "path"), CASES, ids=[f"{room}:{path.relative_to(PROJECT)}" for room, path in CASES])
def test_a_room_imports_only_what_it_may(room: str, path: Path) -> None:
    _, forbidden, allowed = ROOMS[room]
    names = imports(ast.parse(path.read_text(encoding="utf-8")))
    assert not {name for name in names if name.split(".")[0] in forbidden}
    ours = {name for name in names if name.split(".")[0] in INSIDE}
    if room == "flows":
        # a flow orders skins: one level below tasks, never a room of it
        ours -= {name for name in ours if name.startswith("tasks.") and (PROJECT / "tasks" / f"{name.split('.')[1]}.py").is_file()}
        ours -= {"tasks.stage"}
    assert not {name for name in ours if not within(name, allowed)}


@pytest.mark.parametrize("path", files("tasks/*.py"), ids=lambda path: path.name)
def test_a_skin_loads_training_only_inside_a_function(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = ast.Module(body=[node for node in tree.body if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))], type_ignores=[])
    assert not {name for name in imports(at_import) if name.startswith("tasks.training")}


@pytest.mark.parametrize("path", files("flows/*.py"), ids=lambda path: path.name)
def test_flows_open_no_files(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = {func.id for func in calls if isinstance(func, ast.Name)} | {func.attr for func in calls if isinstance(func, ast.Attribute)}
    assert not named & {"open", "read_text", "write_text", "read_bytes", "write_bytes", "read_table", "write_table", "unlink", "mkdir"}


@pytest.mark.parametrize("path", files("tasks/logic/**/*.py"), ids=lambda path: str(path.relative_to(PROJECT)))
def test_logic_draws_only_from_a_seeded_generator(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            assert node.func.value.id != "random" or node.func.attr == "Random"


def test_no_file_is_named_for_nothing() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [path for path in PROJECT.rglob("*.py") if ".venv" not in path.parts and path.stem in vague]


def test_code_lives_in_its_rooms_only() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    assert {name.split("/")[0] for name in listed} <= {"flows", "tasks", "tests"}


def test_flow_bodies_are_tables_of_contents() -> None:
    for path in files("flows/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef) and any("flow" in ast.unparse(mark) for mark in node.decorator_list):
                assert (node.end_lineno or 0) - node.lineno < 40, f"{path.name}: {node.name}"


@pytest.mark.slow
def test_drawing_the_graph_loads_no_torch() -> None:
    code = "import sys, flows.full_pipeline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


def test_pure_logic_loads_neither_prefect_nor_torch() -> None:
    code = "import sys, tasks.logic.pairs, tasks.logic.curation; sys.exit(bool({'torch', 'prefect'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
