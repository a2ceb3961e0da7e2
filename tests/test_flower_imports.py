"""Flower is imported in its own rooms, and its insides in one file per side."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
PUBLIC |= {"flwr.simulation"}
ROOMS = ("client/flower/", "server/flower/", "simulations/engines/", "simulations/deployed/")
ROOMS += ("simulations/attackers/",)
INTERNALS = {f"{side}/flower/flower_internals.py" for side in ("client", "server")}


def imported(tree):
    """Modules of Flower that a file names: by import statements, or to `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            texts = [each for argument in node.args for each in ast.walk(argument)]
            names = [str(each.value) for each in texts if isinstance(each, ast.Constant)]
        else:
            names = []
        yield from (name for name in names if name.partition(".")[0] == "flwr")


def test_flower_is_imported_in_its_rooms_and_its_insides_in_one_file_per_side():
    found = {}
    for top in ("common", "client", "server", "simulations"):
        for path in (ROOT / top).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            found[name] = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    assert {name for name, modules in found.items() if modules - PUBLIC} == INTERNALS
    users = {name for name, modules in found.items() if modules}
    assert {name for name in users if not name.startswith(ROOMS)} == set()
