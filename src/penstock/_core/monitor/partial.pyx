"""The partial answer: what can be read of this process while no thread gets the GIL.

The words of each loop's heartbeat, the kernel's figures of each thread, and, if asked for, every thread's stack by the
C handler of `faulthandler`. The handler runs in a thread that is on a CPU, by choice the loop's own: the thread that
holds the GIL cannot run Python code then, so no frame changes while it is read. A thread that waits in the kernel gets
no signal, for that could end its system call.
"""

from cpython.mem cimport PyMem_Malloc
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen
from posix.unistd cimport SEEK_SET, ftruncate, lseek, pread

from penstock._core._sys.procfs cimport (
    ThreadState, file_bytes, handler_of, read_thread, read_threads, signal_thread, sleep_ns, wall_ns,
)
from penstock._core._sys.threads cimport cpu_ns, own_thread_number
from penstock._core.events.clock cimport now_ns
from penstock._core.monitor.text cimport Text, put, put_count, put_quoted, put_seconds
from penstock._core.tasks.heartbeat cimport Heartbeat

cdef extern from *:
    """
    #define penstock_monitor_word(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
    """
    int64_t word "penstock_monitor_word"(const int64_t *word) noexcept nogil
    uint64_t count_word "penstock_monitor_word"(const uint64_t *word) noexcept nogil
    unsigned long thread_word "penstock_monitor_word"(const unsigned long *word) noexcept nogil
    int small_word "penstock_monitor_word"(const int *word) noexcept nogil

cdef enum:
    MOST_THREADS = 64
    MOST_STACK_BYTES = 32 * 1024

# A callback of this length blocks the loop.
cdef int64_t BLOCKED_NS = 50_000_000
# How long the handler may take to write the stacks, and how often that is looked at.
cdef int64_t STACKS_NS = 20_000_000
cdef int64_t LOOK_NS = 1_000_000


cdef FollowedLoop *new_followed(Heartbeat heartbeat, bytes name) except NULL:
    """Return the pointers to a heartbeat's words, in memory of PyMem_Malloc. The caller keeps the heartbeat."""
    cdef FollowedLoop *followed = <FollowedLoop *>PyMem_Malloc(sizeof(FollowedLoop))
    cdef size_t size_bytes = min(<size_t>len(name), <size_t>NAME_BYTES - 1)
    if followed is NULL:
        raise MemoryError
    memset(followed, 0, sizeof(FollowedLoop))
    followed.turn_since_ns, followed.callback_since_ns = &heartbeat.turn_since_ns, &heartbeat.callback_since_ns
    followed.turn_number, followed.thread_id = &heartbeat.turn_number, &heartbeat.thread_id
    followed.native_id, followed.cpu_clock = &heartbeat.native_id, &heartbeat.cpu_clock
    memcpy(followed.name, <const char *>name, size_bytes)
    return followed


cdef int read_loops(const FollowedLoop *loops, LoopReading *found) noexcept nogil:
    """Read the words of at most MOST_LOOPS loops. Return their number."""
    cdef int count = 0
    while loops is not NULL and count < MOST_LOOPS:
        found[count].turn_number = count_word(loops.turn_number)
        found[count].turn_since_ns = word(loops.turn_since_ns)
        found[count].callback_since_ns = word(loops.callback_since_ns)
        found[count].thread_id = thread_word(loops.thread_id)
        found[count].native_id = small_word(loops.native_id)
        found[count].cpu_ns = cpu_ns(small_word(loops.cpu_clock))
        memcpy(found[count].name, loops.name, NAME_BYTES)
        count += 1
        loops = loops.next
    return count


cdef void put_partial_answer(
    Text *text, const LoopReading *loops, int loop_count, int pid, int64_t waited_ns, const StackSignal *stacks
) noexcept nogil:
    """Write the answer, one line of JSON. `stacks` is NULL unless they were asked for."""
    cdef int64_t at_ns = now_ns()
    cdef int at
    put(text, b'{"ok":true,"version":1,"partial":true,"pid":')
    put_count(text, pid)
    put(text, b',"at_s":')
    put_seconds(text, at_ns)
    put(text, b',"wall_time_s":')
    put_seconds(text, wall_ns())
    put(text, b',"reason":"the GIL was not available for ')
    put_seconds(text, waited_ns)
    put(text, b' s","unread":["tasks","sites","findings","lanes","gates","connections"],"loops":[')
    for at in range(loop_count):
        put(text, b"," if at else b"")
        put_loop(text, &loops[at], at_ns)
    put(text, b'],"threads":[')
    put_threads(text)
    put(text, b"]")
    if stacks is not NULL:
        put(text, b',"native_stacks":')
        put_stacks(text, stacks, loops, loop_count)
    put(text, b"}\n")


cdef void put_loop(Text *text, const LoopReading *loop, int64_t at_ns) noexcept nogil:
    put(text, b'{"name":')
    put_quoted(text, loop.name, strlen(loop.name))
    put(text, b',"running":true' if loop.thread_id else b',"running":false')
    put(text, b',"thread_id":')
    put_count(text, <int64_t>loop.thread_id)
    put(text, b',"native_id":')
    put_count(text, loop.native_id)
    put(text, b',"turns":')
    put_count(text, <int64_t>loop.turn_number)
    put(text, b',"cpu_s":')
    put_seconds(text, loop.cpu_ns)
    put(text, b',"blocked":')
    if loop.callback_since_ns and at_ns - loop.callback_since_ns >= BLOCKED_NS:
        put_blocked(text, loop.callback_since_ns, at_ns, b"callback")
    elif loop.turn_since_ns and at_ns - loop.turn_since_ns >= BLOCKED_NS:
        put_blocked(text, loop.turn_since_ns, at_ns, b"turn")
    else:
        put(text, b"null")
    put(text, b"}")


cdef void put_blocked(Text *text, int64_t since_ns, int64_t at_ns, const char *kind) noexcept nogil:
    put(text, b'{"since_s":')
    put_seconds(text, since_ns)
    put(text, b',"lasted_s":')
    put_seconds(text, at_ns - since_ns)
    put(text, b',"kind":"')
    put(text, kind)
    put(text, b'"}')


cdef void put_threads(Text *text) noexcept nogil:
    cdef ThreadState[MOST_THREADS] found
    cdef int at, count = read_threads(found, MOST_THREADS)
    cdef char[2] state
    state[1] = 0
    for at in range(count):
        put(text, b',{"native_id":' if at else b'{"native_id":')
        put_count(text, found[at].number)
        put(text, b',"name":')
        put_quoted(text, found[at].name, strlen(found[at].name))
        put(text, b',"state":')
        state[0] = found[at].state
        put_quoted(text, state, 1)
        put(text, b',"cpu_s":')
        put_seconds(text, found[at].cpu_ns)
        put(text, b"}")


cdef void put_stacks(Text *text, const StackSignal *stacks, const LoopReading *loops, int loop_count) noexcept nogil:
    """Write the stacks of all threads as faulthandler shows them; `null` if they cannot be had safely."""
    cdef int thread = busy_thread(loops, loop_count, stacks.answering)
    cdef char *memory
    cdef Py_ssize_t size_bytes
    # a handler that the program has set meanwhile is its own
    if not stacks.number or not thread or handler_of(stacks.number) is not stacks.handler:
        put(text, b"null")
        return
    memory = <char *>malloc(MOST_STACK_BYTES)
    if memory is not NULL and ftruncate(stacks.fd, 0) == 0 and lseek(stacks.fd, 0, SEEK_SET) == 0:
        signal_thread(thread, stacks.number)
        wait_for_text(stacks.fd)
        size_bytes = pread(stacks.fd, memory, MOST_STACK_BYTES, 0)
        put_quoted(text, memory, <size_t>max(size_bytes, 0))
    else:
        put(text, b"null")
    free(memory)


cdef int busy_thread(const LoopReading *loops, int loop_count, int answering) noexcept nogil:
    """Return a loop's thread that computes, else the only other thread that does; 0 without one."""
    cdef ThreadState[MOST_THREADS] found
    cdef int at, count, chosen = 0
    for at in range(loop_count):
        if loops[at].native_id and computes(loops[at].native_id):
            return loops[at].native_id
    count = read_threads(found, MOST_THREADS)
    for at in range(count):
        # the two threads of this server are no part of the program
        if found[at].state != b"R" or found[at].number in (own_thread_number(), answering):
            continue
        if chosen:
            return 0
        chosen = found[at].number
    return chosen if chosen and computes(chosen) else 0


cdef bint computes(int thread) noexcept nogil:
    """Return whether a thread is on a CPU, or waits for one, at two looks: one that wakes for a moment does not count."""
    cdef ThreadState found
    if not read_thread(thread, &found) or found.state != b"R":
        return False
    sleep_ns(LOOK_NS)
    return read_thread(thread, &found) and found.state == b"R"


cdef void wait_for_text(int fd) noexcept nogil:
    """Wait until the file has text and does not grow any more, at most STACKS_NS."""
    cdef int64_t until_ns = now_ns() + STACKS_NS, before_bytes = 0, bytes_now
    while now_ns() < until_ns:
        sleep_ns(LOOK_NS)
        bytes_now = file_bytes(fd)
        if bytes_now > 0 and bytes_now == before_bytes:
            return
        before_bytes = bytes_now
