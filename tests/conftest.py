"""Setup that every test relies on: collection, coroutine tests, garbage, certificates."""

import gc
import inspect
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import penstock.testing
from penstock.loop import NATIVE
from penstock.runtime.attach.service import attach_service

# Tests count the threads and descriptors of their own process. Programs that they start can be attached to.
attach_service.is_allowed = False

pytest_plugins = ["tests.support.leftovers", "tests.support.retried"]

# A shell's background job ignores SIGINT, and so would every process that a test starts to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast an example is made and run says how busy the machine is, nothing of what is tested.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")

HERE = Path(__file__).parent
# What depends neither on the version of Python nor on whether the native code is there runs on one Python alone: pure
# arithmetic, the command line, exporters, others' libraries, whole services. `make test` leaves it out elsewhere.
ONCE = (
    "e2e/test_abuse.py",
    "e2e/test_deploy_files.py",
    "e2e/test_deploy_nginx.py",
    "e2e/test_doctor.py",
    "e2e/test_documents.py",
    "e2e/test_examples_of_services.py",
    "e2e/test_example.py",
    "e2e/test_frameworks.py",
    "e2e/test_gunicorn.py",
    "e2e/test_other_servers.py",
    "e2e/test_monitor_page.py",
    "e2e/test_notebooks.py",
    "e2e/test_offload.py",
    "e2e/test_output.py",
    "e2e/test_reloads_under_load.py",
    "e2e/test_report.py",
    "e2e/test_seeded_faults.py",
    "e2e/test_run.py::test_bad_",
    "e2e/test_run.py::test_help_",
    "e2e/test_tour.py",
    "e2e/test_serve.py::test_a_bad_",
    "e2e/test_serve_addresses.py",
    "e2e/test_serve.py::test_bad_",
    "e2e/test_top.py",
    "loop/tls/test_services.py",
    "meta",
    "unit/benchmarks",
    "unit/cli",
    "unit/executors/test_admission.py",
    "unit/executors/test_chaos.py",
    "unit/executors/test_dask.py",
    "unit/executors/test_deadlines.py",
    "unit/executors/test_fairqueue.py",
    "unit/executors/test_adapter.py",
    "unit/executors/test_growth.py",
    "unit/executors/test_counters.py",
    "unit/executors/test_process_bounds.py",
    "unit/executors/test_ray.py",
    "unit/executors/test_cores.py",
    "unit/executors/test_protocol.py",
    "unit/integrations/test_admission.py",
    "unit/integrations/test_aiohttp.py",
    "unit/integrations/test_asgi.py",
    "unit/integrations/test_grpc.py",
    "unit/integrations/test_metrics.py",
    "unit/integrations/test_metrics_totals.py",
    "unit/integrations/test_pytest_plugin.py",
    "unit/monitor",
    "unit/pressure/test_deadlines.py::test_no_",
    "unit/pressure/test_gate_model.py::TestThePlainCore",
    "unit/pressure/test_gate_simulation.py",
    "unit/pressure/test_gradient.py",
    "unit/pressure/test_limits.py",
    "unit/pressure/test_linearity.py",
    "unit/pressure/test_replies.py",
    "unit/monitor/report",
    "unit/runtime/supervisor/test_control.py",
    "unit/runtime/supervisor/test_fleet.py",
    "unit/runtime/supervisor/test_fleet_faults.py",
    "unit/runtime/supervisor/test_fleet_model.py",
    "unit/runtime/supervisor/test_hang_watch.py",
    "unit/runtime/supervisor/test_health_page.py",
    "unit/runtime/supervisor/test_notify.py",
    "unit/runtime/test_listening.py",
    "unit/tasks/graph/test_stuck_by_chance.py",
    "unit/tasks/test_causes.py",
    "unit/tasks/test_logs.py",
    "unit/tasks/test_trends.py",
    "unit/telemetry",
    "unit/test_config.py",
    "unit/test_config_lanes.py",
    "unit/test_times.py",
)

# What depends on the native code and on no version of Python runs natively and on the pure wheel, on one Python.
CORES = (
    "e2e/test_health.py",
    "e2e/test_logging.py",
    "e2e/test_metrics_workers.py",
    "e2e/test_monitor_process.py",
    "e2e/test_refusals.py",
    "e2e/test_workers.py",
    "e2e/test_workers_cases.py",
    "e2e/test_workers_faults.py",
    "e2e/test_workers_upgrade.py",
    "e2e/test_serve_drain_delay.py",
    "e2e/test_serve_systemd.py",
    "unit/runtime/supervisor/test_parent_tie.py",
    "unit/runtime/supervisor/test_supervisor.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(HERE)
        if item.nodeid.removeprefix("tests/").startswith(CORES):
            item.add_marker("cores")
        if item.nodeid.removeprefix("tests/").startswith(ONCE) or is_asyncio_again(item, place):
            item.add_marker("once")


def is_asyncio_again(item: pytest.Item, place: Path) -> bool:
    """Whether it tests asyncio's own loop, with nothing of ours in it, as another leg does: the native one does so on
    the Python of the pure one and of the sanitizers, and what is of a size is tried on one Python alone."""
    callspec = getattr(item, "callspec", None)
    if not place.is_relative_to("loop") or callspec is None or callspec.params.get("loop_factory") != "asyncio":
        return False
    return not NATIVE or "PENSTOCK_SANITIZE" in os.environ or item.get_closest_marker("large") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    """Let a coroutine test use the fixture that runs it, and so be collected for each of that fixture's loops."""
    if inspect.iscoroutinefunction(obj) and collector.istestfunction(obj, name):
        own = [mark for mark in getattr(obj, "pytestmark", []) if mark.name == "runner"]
        fixture, _ = runner_of(own[0] if own else collector.get_closest_marker("runner"))
        pytest.mark.usefixtures(fixture)(obj)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a coroutine test by its fixture `run`, or by the fixture and with the options of its marker `runner`."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return (yield)
    fixture, options = runner_of(pyfuncitem.get_closest_marker("runner"))
    run = pyfuncitem.funcargs[fixture]
    pyfuncitem.obj = lambda **given: run(test(**given), **options)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


def runner_of(marker: pytest.Mark | None) -> tuple[str, dict[str, Any]]:
    """The name of the fixture that runs a coroutine test, and what else that fixture is called with."""
    if marker is None:
        return "run", {}
    (fixture,) = marker.args or ("run",)
    return fixture, dict(marker.kwargs)


def pytest_collection_finish() -> None:
    """Freeze the objects that exist now: later collections need not walk over them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def virtual():
    """`virtual(coroutine)`: run it to its end in virtual time."""
    return penstock.testing.run


@pytest.fixture(scope="session")
def contexts(tmp_path_factory):
    """A server and a client context around a certificate made for this run."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
