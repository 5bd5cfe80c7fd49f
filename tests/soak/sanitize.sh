#!/usr/bin/env bash
# Builds the extension with the address and undefined-behaviour sanitizers in build/sanitize, beside the normal one, and
# runs the tests and the stress there: `sanitize.sh PYTHON [SECONDS of stress]`. Needs gcc with libasan.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="$(realpath -s "$1")" seconds="${2:-60}" tree=build/sanitize
library="$(gcc -print-file-name=libasan.so)"
[[ -e "$library" ]] || { echo "gcc has no libasan here: install it, or leave this target out" >&2; exit 2; }

mkdir -p "$tree"
tar -c --exclude='*.so' --exclude=__pycache__ setup.py pyproject.toml README.md LICENSE src tests examples docs | tar -x -C "$tree"
cd "$tree"
# The build's switch, and that of tests/conftest.py: asyncio's own loop has nothing in it that could be found here.
export PYTHONPATH="$PWD/src" PENSTOCK_SANITIZE=1
"$python" setup.py --quiet build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }

# CPython leaks at exit by design. The sanitizer aborts at the end of a thread in which faulthandler was set up, unless
# it has no signal stack of its own. The quarantine is bounded, since it counts as resident memory; pymalloc would hide
# a use after free from the sanitizer.
export LD_PRELOAD="$library" PYTHONMALLOC=malloc
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:abort_on_error=1:quarantine_size_mb=64:use_sigaltstack=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
"$python" -c 'import penstock.loop; assert penstock.loop.NATIVE and "build/sanitize" in penstock.__file__'
# What measures memory measures the sanitizer here. Left out is what is Python alone: clusters, threads, exporters, the
# command line, the search through references, the virtual loop; signals of workers, which a plain fork starts too: a child
# forked from a process with threads may wait for ever for a lock of the sanitizer's allocator.
tests() {
  "$python" tests/leg.py "$@" -m 'not once' \
    -k 'not ten_thousand_connections and not memory_behind and not stays_flat'
}
# Two at once; what the one in the background says is shown when the other has ended.
failed=0
tests tests/loop >loop.log 2>&1 &
tests tests/unit --ignore tests/unit/executors/threads --ignore tests/unit/testing \
  --ignore tests/unit/executors/test_process_signals.py --ignore tests/unit/integrations \
  --ignore tests/unit/tasks/graph --ignore tests/unit/benchmarks || failed=1
wait $! || failed=1
cat loop.log
((!failed)) || exit 1
"$python" -X faulthandler -m tests.soak.stress --seconds "$seconds"
"$python" -X faulthandler -m tests.soak.interrupts --seconds "$((seconds / 4 + 5))"
