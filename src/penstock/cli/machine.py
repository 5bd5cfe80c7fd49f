"""The facts that `penstock doctor` reports about kernel and interpreter, with advice for weak spots.

It only reads, and needs no root. A missing file, as outside Linux, makes a fact "unknown".
"""

import ctypes
import errno
import importlib
import importlib.util
import os
import platform
import resource
import select
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import penstock
from penstock import loop
from penstock.config import Config
from penstock.executors.cores import usable_cores
from penstock.loop.native import tls_engine, unknown_layout
from penstock.purity import PURE_VARIABLE, is_pure_requested

__all__ = ["Fact", "examine"]

# With fewer, a busy service reaches this limit before that of the CPU.
FEW_FILES = 65_536
# As in setup.py: for such a Python no extension is built.
UNKNOWN_FRAMES = (3, 16)
NEWER_PYTHON = "penstock has no native loop for this Python yet: use an earlier one"
# pip caches a wheel without the extension and would install it again.
NOT_BUILT = (
    "the extension was not built: with a C compiler (gcc) present and PENSTOCK_PURE unset, install penstock again "
    "(pip install --force-reinstall --no-cache-dir)"
)
IO_URING_SETUP = 425  # the same number on every architecture


@dataclass(frozen=True, slots=True)
class Fact:
    """One property of the machine: its name, its value as data and as text, and advice or an empty string."""

    name: str
    value: object
    text: str
    advice: str = ""


def examine() -> list[Fact]:
    """Return the facts in the order of the report."""
    return [
        Fact("penstock", penstock.__version__, penstock.__version__),
        _python(),
        _kernel(),
        _loop(),
        *_layout(),
        *_tls(),
        _poller(),
        _io_uring(),
        _cores(),
        _files(),
        _somaxconn(),
    ]


def _python() -> Fact:
    name = f"{platform.python_implementation()} {platform.python_version()}"
    advice = ""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        advice = "the extension turns the GIL on in a free-threaded Python: use the ordinary build"
    elif sys.flags.dev_mode:
        advice = "-X dev is on: asyncio's debug mode costs more than penstock gains"
    return Fact("python", name, f"{name}, {sys.executable}", advice)


def _kernel() -> Fact:
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Fact("kernel", name, name)


def _loop() -> Fact:
    if loop.NATIVE:
        return Fact("loop", "native", "native extension")
    if is_pure_requested():
        setting = f"{PURE_VARIABLE}={os.environ[PURE_VARIABLE]}"
        return Fact("loop", "pure", "pure: asyncio's selector loop", f"{setting} is set: unset it")
    if not sys.platform.startswith("linux"):
        return Fact("loop", "pure", "pure: asyncio's selector loop", "the native loop needs Linux")
    return Fact("loop", "pure", "pure: asyncio's selector loop", _why_not_native())


def _why_not_native() -> str:
    if importlib.util.find_spec("penstock._core.reactor") is None:
        return NEWER_PYTHON if sys.version_info >= UNKNOWN_FRAMES else NOT_BUILT
    try:
        importlib.import_module("penstock._core.reactor")
    except ImportError as error:
        if "Interpreter change" in str(error) or "subinterpreters" in str(error):
            return "the extension does not load in a subinterpreter: use a process of its own"
        return f"the extension does not load: {error}"
    return "the extension loads but is not used: please report it"


def _layout() -> list[Fact]:
    """Return how the core reads tasks and frames; nothing without the core, which alone does."""
    if not loop.NATIVE:
        return []
    unknown = unknown_layout()
    if not unknown:
        return [Fact("task layout", [], "known")]
    text = f"not known: {', '.join(unknown)}"
    return [Fact("task layout", list(unknown), text, "task telemetry asks Python's own attributes, and costs more")]


def _tls() -> list[Fact]:
    """Return the engine of the native loop's TLS; nothing without that loop."""
    if not loop.NATIVE:
        return []
    name, reason = tls_engine()
    if not reason:
        return [Fact("tls", name, "OpenSSL called directly")]
    return [Fact("tls", name, f"ssl's memory BIOs: {reason}", "TLS works the same, and costs more")]


def _poller() -> Fact:
    names = [name for name in ("epoll", "kqueue", "poll", "select") if hasattr(select, name)]
    advice = "" if "epoll" in names else "no epoll here: the selector loop is used"
    return Fact("poller", names[0], names[0], advice)


def _io_uring() -> Fact:
    """Test the kernel with an invalid io_uring_setup call, whose error number gives the answer."""
    if not sys.platform.startswith("linux"):
        return Fact("io_uring", "unavailable", "not on this system")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(IO_URING_SETUP, 0, None)
    code = ctypes.get_errno()
    if code == errno.ENOSYS:
        return Fact("io_uring", "unavailable", "not in this kernel (5.1 or later has it)")
    if code == errno.EPERM:
        return Fact("io_uring", "forbidden", "forbidden (kernel.io_uring_disabled or a seccomp filter)")
    return Fact("io_uring", "available", "available (penstock polls by epoll so far)")


def _cores() -> Fact:
    total = os.cpu_count() or 1
    cores = usable_cores()
    allowed, quota = cores.affinity, cores.quota_cores
    value = {"machine_count": total, "affinity_count": allowed, "quota": quota, "override_count": cores.override}
    text = f"{total} in the machine, {allowed} allowed, quota {'none' if quota is None else f'{quota:g}'}"
    if cores.override is not None:
        text += f", PENSTOCK_CPUS {cores.override}"
    usable = min(allowed, quota) if quota is not None else allowed
    advice = ""
    if usable < 1:
        advice = f"a quota of {quota:g} of a core stops every process for most of each period: grant at least 1"
    elif quota is not None and quota < allowed:
        advice = f"the quota, not the cores, is the limit: run `penstock serve --workers {int(usable)}` at most"
    return Fact("cores", value, text, advice)


def _files() -> Fact:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = ["unlimited" if limit == resource.RLIM_INFINITY else str(limit) for limit in (soft, hard)]
    advice = ""
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        advice = f"{soft} open files bound the connections: raise it (ulimit -n {FEW_FILES}, LimitNOFILE= in systemd)"
    return Fact("open files", {"soft": soft, "hard": hard}, f"{shown[0]} (hard limit {shown[1]})", advice)


def _somaxconn() -> Fact:
    text = _read("/proc/sys/net/core/somaxconn")
    if not text.isdigit():
        return Fact("somaxconn", None, "unknown")
    backlog = Config().pressure.backlog
    advice = ""
    if int(text) < backlog:
        advice = f"it cuts the listen backlog of {backlog} to {text}: sysctl -w net.core.somaxconn={backlog * 2}"
    return Fact("somaxconn", int(text), text, advice)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
