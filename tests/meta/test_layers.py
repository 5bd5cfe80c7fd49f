"""The layers: imports point down only, and the native core knows nothing above it."""

from collections import Counter
from pathlib import Path

import pytest

from tests.meta.source import imports, module_name, shown, sources

# From the top. A module imports its own layer's package and the layers below; the middle packages, which share a
# number, never import each other. What is not named here, the package's own modules, is importable by all but _core.
LAYERS = {
    "cli": 6,
    "monitor": 5,
    "runtime": 4,
    "integrations": 4,
    "executors": 3,
    "tasks": 3,
    "pressure": 3,
    "telemetry": 3,
    "loop": 2,
    "_core": 1,
}
# runtime wires, integrations present: an integration may build on runtime, and no other pair on one level may.
SIDEWAYS = {("integrations", "runtime")}
# testing ships a loop of its own: it needs no layer, and none needs it; the pytest plugin hands it out.
APART = {"testing"}
HANDED_OUT = {("integrations", "testing")}
DOOR = "penstock"
# The edges between the packages of the native core; "" are the modules at its top. `_sys` has declarations only.
CORE_EDGES = {
    "": {"net", "tls", "datagrams", "pipes", "limits", "overload", "tasks", "events"},
    "net": {"events", "overload", "limits"},
    "tls": {"net", "limits", "overload", "events"},
    "datagrams": {"net", "limits", "overload", "events"},
    "pipes": {"net", "limits", "overload", "events"},
    "limits": set(),
    "overload": {"events"},
    "tasks": {"events"},
    "workers": {"events", "tasks"},
    "monitor": {"events", "tasks"},
    "sync": {"events"},
    "events": set(),
}


def layer(module: str) -> str:
    """`loop` for `penstock.loop.native`; "" for the package's own modules."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS.keys() | APART else ""


def breaks(importer: str, imported: str) -> bool:
    """Whether an import points up or sideways."""
    if not (imported == DOOR or imported.startswith(DOOR + ".")):
        return False
    source, target = layer(importer), layer(imported)
    if source == "_core":
        return target != "_core"
    if not source or not target or source == target:
        return False
    if source in APART or target in APART:
        return (source, target) not in HANDED_OUT
    return LAYERS[target] >= LAYERS[source] and (source, target) not in SIDEWAYS


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxd"), ids=shown)
def test_imports_point_down(path: Path) -> None:
    name = module_name(path)
    wrong = sorted(imported for imported in imports(path) if breaks(name, imported))
    assert not wrong, f"{shown(path)} imports {', '.join(wrong)}"


def test_the_rule_itself_tells_up_from_down() -> None:
    assert breaks("penstock.loop.native", "penstock.runtime.policy")
    assert breaks("penstock.executors.threads.lane", "penstock.tasks.observers.sites")
    assert breaks("penstock._core.reactor", "penstock.errors")
    assert breaks("penstock.runtime.policy", "penstock.integrations.uvicorn.serving")
    assert breaks("penstock.testing.virtualloop", "penstock.loop.native")
    assert breaks("penstock.runtime.runner", "penstock.testing.virtualloop")
    assert not breaks("penstock.testing.virtualloop", "penstock.errors")
    assert not breaks("penstock.integrations.uvicorn.serving", "penstock.runtime.policy")
    assert not breaks("penstock.loop.native", "penstock._core.reactor")
    assert not breaks("penstock._core.reactor", "penstock._core.events.poller")


def core_package(module: str) -> str:
    """`net` for `penstock._core.net.stream`; "" for the modules at the core's top."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[2] in CORE_EDGES.keys() | {"_sys"} else ""


def breaks_core_edge(importer: str, imported: str) -> bool:
    """Whether an import between two packages of the core is none of its edges."""
    if layer(importer) != "_core" or not imported.startswith("penstock._core."):
        return False
    source, target = core_package(importer), core_package(imported)
    return target not in (source, "_sys") and target not in CORE_EDGES.get(source, set())


@pytest.mark.parametrize("path", [path for path in sources(".py", ".pyx", ".pxd") if "_core" in path.parts], ids=shown)
def test_the_cores_packages_import_along_their_edges(path: Path) -> None:
    name = module_name(path)
    wrong = sorted(imported for imported in imports(path) if breaks_core_edge(name, imported))
    assert not wrong, f"{shown(path)} imports {', '.join(wrong)}"


def test_the_rule_of_edges_tells_an_edge_from_its_reverse() -> None:
    assert breaks_core_edge("penstock._core.events.poller", "penstock._core.net.stream")
    assert breaks_core_edge("penstock._core.net.stream", "penstock._core.tasks.probe")
    assert breaks_core_edge("penstock._core.net.stream", "penstock._core.reactor")
    assert not breaks_core_edge("penstock._core.reactor", "penstock._core.net.stream")
    assert not breaks_core_edge("penstock._core.net.stream", "penstock._core._sys.epoll")


def test_the_cores_modules_form_no_circle() -> None:
    known = {module_name(path) for path in sources(".pyx", ".pxd")}
    needs: dict[str, set[str]] = {name: set() for name in known}
    for path in sources(".pyx", ".pxd"):
        name = module_name(path)
        # The declarations alone: a .pyx may reach back to whom it serves once both are loaded.
        if path.suffix == ".pxd":
            needs[name] |= {other for used in imports(path) for other in known if _within(used, other)} - {name}
    while free := {name for name, others in needs.items() if not others}:
        needs = {name: others - free for name, others in needs.items() if name not in free}
    assert not needs, f"these modules of _core need each other: {sorted(needs)}"


def test_modules_form_no_circle() -> None:
    """Imports inside functions and under TYPE_CHECKING count too; the package itself, which lists all, does not."""
    known = {module_name(path) for path in sources(".py", ".pyx", ".pxd")} - {DOOR}
    needs: dict[str, set[str]] = {name: set() for name in known}
    for path in sources(".py", ".pyx", ".pxd"):
        if (name := module_name(path)) in known:
            found = {_module(imported, known) for imported in imports(path)}
            needs[name] |= {other for other in found if other} - {name}
    assert not _circles(needs)


def _module(imported: str, known: set[str]) -> str:
    """Return the deepest known module in a dotted name, or an empty string."""
    while imported and imported not in known:
        imported = imported.rpartition(".")[0]
    return imported


def _circles(needs: dict[str, set[str]]) -> list[str]:
    """Return the modules that remain after all with no imports left, and all that nothing left imports."""
    while free := {name for name, others in needs.items() if not others}:
        needs = {name: others - free for name, others in needs.items() if name not in free}
    while roots := needs.keys() - {other for others in needs.values() for other in others}:
        needs = {name: others for name, others in needs.items() if name not in roots}
    return sorted(needs)


def test_the_search_for_circles_finds_one() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]
    assert _circles({"a": {"b"}, "b": set()}) == []


MOST_MODULES = 15


def test_a_folder_has_few_modules() -> None:
    folders = Counter(path.parent for path in sources(".py", ".pyx") if path.stem != "__init__")
    assert not {shown(folder): count for folder, count in folders.items() if count > MOST_MODULES}


def _within(used: str, module: str) -> bool:
    return used == module or used.startswith(module + ".")
