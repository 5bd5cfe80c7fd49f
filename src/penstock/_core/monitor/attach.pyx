"""The attach server: its connections, and the thread that serves them without the GIL.

`serve` is the body of that thread, which is Python's and never asks for the GIL. It accepts clients of this user, reads
a line of each, and sends the answers. Python makes the answers: a second thread asks `take` for a line and calls `give`.
If that thread has not had the GIL for a client's patience, 60 ms, the first one sends what can be read without it.

Ownership: the server owns the descriptors of its clients and two eventfds, and keeps the listener's socket and the
heartbeats that it follows. The lock protects the clients and the list of loops. A forked child has neither thread: it
calls `forked`, before anything else.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport atoi
from libc.string cimport memchr, memmove, memset, strstr
from posix.unistd cimport close, geteuid, getpid

from penstock._core._sys.epoll cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_t, eventfd_write
from penstock._core._sys.poll cimport POLLERR, POLLHUP, POLLIN, POLLOUT, poll, pollfd, wait_readable
from penstock._core._sys.procfs cimport (
    ThreadState, block_signals, handler_of, is_eventfd, peer_user, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock, read_thread, socket_number,
)
from penstock._core._sys.socket cimport (
    MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, recv, send as send_bytes,
)
from penstock._core._sys.threads cimport own_thread_number
from penstock._core.events.clock cimport now_ns
from penstock._core.monitor.partial cimport (
    MOST_LOOPS, FollowedLoop, LoopReading, new_followed, put_partial_answer, read_loops,
)
from penstock._core.monitor.text cimport Text, put, put_bytes, release, reserve
from penstock._core.tasks.heartbeat cimport Heartbeat

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_read(int fd, eventfd_t *value)

cdef enum:
    MOST_LINE_BYTES = 64 * 1024
    CHUNK_BYTES = 16 * 1024
    MOST_PATIENCE_MS = 10_000

cdef int64_t NEVER_NS = <int64_t>1 << 62
cdef int64_t PATIENCE_NS = 60_000_000
# For a begun line or answer to make progress; for the next line of a client that has been answered.
cdef int64_t PROGRESS_NS = 5_000_000_000
cdef int64_t IDLE_NS = 600_000_000_000
# Until the next look when no descriptor was free.
cdef int64_t ACCEPT_AGAIN_NS = 100_000_000
# How long an answering thread that is ready to run may take in all.
cdef int64_t STARVED_NS = 2_000_000_000
cdef const char *TOO_LONG = b'{"ok":false,"error":"a message has at most 65536 bytes"}\n'


cdef class AttachServer:
    """The attach server of one process, over a listening Unix socket that does not block."""

    def __cinit__(self, listener not None):
        cdef int at
        self.wake_fd = self.ask_fd = -1
        for at in range(MOST_CLIENTS):
            self.clients[at].fd = -1
        self.followed = {}
        self.listener, self.listener_fd = listener, listener.fileno()
        self.pid, self.listener_number = getpid(), socket_number(self.listener_fd)
        self.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self.ask_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake_fd < 0 or self.ask_fd < 0:
            PyErr_SetFromErrno(OSError)
        self.has_lock = pthread_mutex_init(&self.lock, NULL) == 0
        if not self.has_lock:
            raise MemoryError

    def __dealloc__(self):
        cdef FollowedLoop *loop
        while self.loops is not NULL:
            loop, self.loops = self.loops, self.loops.next
            PyMem_Free(loop)
        self.close_all()
        if self.has_lock:
            pthread_mutex_destroy(&self.lock)

    def forked(self):
        """Give up everything in a forked child, where no thread serves; the parent's may have held the lock."""
        if self.has_lock:
            pthread_mutex_init(&self.lock, NULL)
        self.stopping, self.serving = True, False
        self.close_all()

    def close_all(self):
        """Close every client and the eventfds. No thread may serve or take meanwhile."""
        cdef int at
        for at in range(MOST_CLIENTS):
            if self.clients[at].state != FREE:
                self.drop(&self.clients[at])
        if is_eventfd(self.wake_fd):
            close(self.wake_fd)
        if is_eventfd(self.ask_fd):
            close(self.ask_fd)
        self.wake_fd = self.ask_fd = -1

    # --- for Python, with the GIL

    def follow(self, Heartbeat heartbeat not None, name):
        """Show this loop in partial answers, under `name`, until `unfollow`."""
        cdef FollowedLoop *loop
        if heartbeat in self.followed:
            return
        loop = new_followed(heartbeat, str(name).encode("ascii", "replace"))
        self.followed[heartbeat] = <uintptr_t>loop
        pthread_mutex_lock(&self.lock)
        loop.next, self.loops = self.loops, loop
        pthread_mutex_unlock(&self.lock)

    def unfollow(self, Heartbeat heartbeat not None):
        """Show this loop no more; no effect if it is not followed."""
        cdef FollowedLoop *loop = <FollowedLoop *><uintptr_t>self.followed.get(heartbeat, 0)
        cdef FollowedLoop **link = &self.loops
        if loop is NULL:
            return
        pthread_mutex_lock(&self.lock)
        while link[0] is not NULL and link[0] is not loop:
            link = &link[0].next
        if link[0] is loop:
            link[0] = loop.next
        pthread_mutex_unlock(&self.lock)
        PyMem_Free(loop)
        # last: the heartbeat may go with it
        del self.followed[heartbeat]

    def use_stacks(self, int signal_number, int fd):
        """Have the present handler of a signal write stacks to `fd` for partial answers."""
        pthread_mutex_lock(&self.lock)
        self.stacks.number, self.stacks.fd = signal_number, fd
        self.stacks.handler = handler_of(signal_number)
        pthread_mutex_unlock(&self.lock)

    def leave_stacks(self):
        """Use no signal any more. Return whether the signal still has the handler of `use_stacks`."""
        cdef bint is_same
        pthread_mutex_lock(&self.lock)
        is_same = self.stacks.number and handler_of(self.stacks.number) is self.stacks.handler
        self.stacks.number, self.stacks.fd, self.stacks.handler = 0, -1, NULL
        pthread_mutex_unlock(&self.lock)
        return is_same

    def take(self, int timeout_ms):
        """Wait for a line without the GIL, at most `timeout_ms`, or -1. Return (number, line), or None, also after `stop`."""
        cdef uint64_t number = 0
        cdef eventfd_t ignored
        cdef int ready
        self.stacks.answering = own_thread_number()
        while not self.stopping:
            line = self.take_line(&number)
            if line is not None:
                return number, line
            with nogil:
                ready = wait_readable(self.ask_fd, -1 if timeout_ms < 0 else <int64_t>timeout_ms * 1_000_000)
                if ready > 0 and not self.is_intact():
                    self.stopping = True
                elif ready > 0:
                    eventfd_read(self.ask_fd, &ignored)
            if ready == 0:
                return None
        return None

    cdef bytes take_line(self, uint64_t *number):
        """Return the line that has waited longest, and its number; None without one."""
        cdef Client *first = NULL
        cdef int at
        pthread_mutex_lock(&self.lock)
        for at in range(MOST_CLIENTS):
            if self.clients[at].state == ASKED and (first is NULL or self.clients[at].number < first.number):
                first = &self.clients[at]
        if first is NULL:
            pthread_mutex_unlock(&self.lock)
            return None
        number[0], first.state = first.number, TAKEN
        self.tick_ns = now_ns()
        pthread_mutex_unlock(&self.lock)
        return self.line_of(number[0])

    def line_of(self, uint64_t number):
        """Return a copy of the line with this number; an empty line if its client is gone."""
        cdef Client *client
        cdef size_t size_bytes
        pthread_mutex_lock(&self.lock)
        client = self.asked_by(number)
        size_bytes = 0 if client is NULL else client.line_bytes
        pthread_mutex_unlock(&self.lock)
        # without the lock: an allocation may collect garbage, and code that runs then may take the lock
        line = PyBytes_FromStringAndSize(NULL, size_bytes)
        pthread_mutex_lock(&self.lock)
        client = self.asked_by(number)
        if client is not NULL and client.line_bytes == size_bytes:
            memmove(PyBytes_AS_STRING(line), client.received.at, size_bytes)
        else:
            memset(PyBytes_AS_STRING(line), 0, size_bytes)
        pthread_mutex_unlock(&self.lock)
        return line

    def tick(self):
        """Note that the answering thread has the GIL: it works on an answer."""
        self.tick_ns = now_ns()

    def hold(self, uint64_t number):
        """Note that this request is answered later. Return False if its client is gone."""
        cdef Client *client
        pthread_mutex_lock(&self.lock)
        client = self.asked_by(number)
        if client is not NULL:
            client.state = HELD
        pthread_mutex_unlock(&self.lock)
        return client is not NULL

    def is_open(self, uint64_t number):
        """Return whether this request still waits for its answer."""
        cdef bint found
        pthread_mutex_lock(&self.lock)
        found = self.asked_by(number) is not NULL
        pthread_mutex_unlock(&self.lock)
        return found

    def give(self, uint64_t number, bytes answer not None):
        """Send the answer to a request, a line with its end. Return False if its client is gone. Any thread may call it."""
        cdef Client *client
        cdef const char *at = PyBytes_AS_STRING(answer)
        cdef size_t size_bytes = PyBytes_GET_SIZE(answer)
        cdef Text copy
        memset(&copy, 0, sizeof(Text))
        with nogil:
            # an answer may have megabytes
            put_bytes(&copy, at, size_bytes)
            pthread_mutex_lock(&self.lock)
            client = self.asked_by(number)
            if client is not NULL:
                client.unsent, client.sent_bytes, client.state = copy, 0, SENDING
                client.until_ns = now_ns() + PROGRESS_NS
                self.tick_ns = now_ns()
                if copy.is_cut:
                    client.is_last = True
            pthread_mutex_unlock(&self.lock)
            if client is NULL:
                release(&copy)
            else:
                self.wake(self.wake_fd)
        return client is not NULL

    def stop(self):
        """Have `serve` and `take` return, now and until `resume`."""
        self.stopping = True
        self.wake(self.wake_fd)
        self.wake(self.ask_fd)

    def resume(self):
        """Let `serve` and `take` be called again, after `stop` and the end of both. Lines that were taken wait again.

        No effect if the program has closed the server's descriptors.
        """
        cdef int at
        if not self.is_intact():
            return
        self.stopping = False
        for at in range(MOST_CLIENTS):
            if self.clients[at].state == TAKEN:
                self.clients[at].state = ASKED
                self.clients[at].asked_ns = now_ns()

    @property
    def is_serving(self):
        """Whether a thread is in `serve`, past its last need of the GIL."""
        return self.is_native

    @property
    def is_stopping(self):
        """Whether `stop` was called, and `resume` not since."""
        return self.stopping

    @property
    def client_count(self):
        """The number of connected clients."""
        cdef int at, count = 0
        for at in range(MOST_CLIENTS):
            count += self.clients[at].state != FREE
        return count

    @property
    def loop_count(self):
        """The number of followed loops."""
        return len(self.followed)

    def serve(self):
        """Serve the clients until `stop`, without the GIL."""
        cdef object own = self
        if self.serving:
            raise RuntimeError("another thread serves these clients")
        self.serving = True
        with nogil:
            block_signals()
            self.is_native = True
            while not self.stopping:
                self.turn()
            self.is_native = self.serving = False

    # --- without the GIL

    cdef bint is_intact(self) noexcept nogil:
        """Return whether the descriptors are the server's: a program may close all, and get their numbers for its own."""
        return (
            self.listener_number != 0
            and socket_number(self.listener_fd) == self.listener_number
            and is_eventfd(self.wake_fd)
            and is_eventfd(self.ask_fd)
        )

    cdef void wake(self, int fd) noexcept nogil:
        """Signal an eventfd, unless its number is another file's by now."""
        if is_eventfd(fd):
            eventfd_write(fd, 1)

    cdef void turn(self) noexcept nogil:
        """Wait for events once, and handle them."""
        cdef pollfd[MOST_CLIENTS + 2] polled
        cdef eventfd_t ignored
        cdef Client *client
        cdef int at, timeout_ms
        cdef int64_t at_ns
        timeout_ms = self.watch(polled)
        poll(polled, MOST_CLIENTS + 2, timeout_ms)
        at_ns = now_ns()
        if not self.is_intact():
            self.stopping = True
            return
        if polled[0].revents:
            eventfd_read(self.wake_fd, &ignored)
        pthread_mutex_lock(&self.lock)
        for at in range(MOST_CLIENTS):
            client = &self.clients[at]
            if client.state == FREE or polled[at + 2].fd != client.fd:
                continue
            if client.state == SENDING:
                self.send(client, at_ns)
            elif polled[at + 2].revents & POLLIN and client.state == READING:
                self.receive(client, at_ns)
            elif polled[at + 2].revents & (POLLHUP | POLLERR):
                self.drop(client)
        self.drop_late(at_ns)
        if polled[1].revents:
            for at in range(MOST_CLIENTS):
                if not self.accept(at_ns):
                    break
        pthread_mutex_unlock(&self.lock)
        self.answer_partially()

    cdef int watch(self, void *memory) noexcept nogil:
        """Fill in the descriptors to poll: the wake event, the listener, each client. Return the timeout in ms."""
        cdef pollfd *polled = <pollfd *>memory
        cdef Client *client
        cdef int at
        cdef int64_t at_ns = now_ns(), next_ns = NEVER_NS
        pthread_mutex_lock(&self.lock)
        polled[0].fd, polled[0].events = self.wake_fd, POLLIN
        polled[1].fd, polled[1].events = self.listener_fd if at_ns >= self.accept_from_ns else -1, POLLIN
        if at_ns < self.accept_from_ns:
            next_ns = self.accept_from_ns
        polled[0].revents = polled[1].revents = 0
        for at in range(MOST_CLIENTS):
            client = &self.clients[at]
            polled[at + 2].fd, polled[at + 2].events, polled[at + 2].revents = client.fd, 0, 0
            if client.state == READING:
                polled[at + 2].events = POLLIN
            elif client.state == SENDING:
                polled[at + 2].events = POLLOUT
            if client.state != FREE:
                next_ns = min(next_ns, self.next_ns(client))
        pthread_mutex_unlock(&self.lock)
        if next_ns == NEVER_NS:
            return -1
        return <int>(min(max(next_ns - at_ns, <int64_t>0), IDLE_NS) // 1_000_000) + 1

    cdef int64_t next_ns(self, Client *client) noexcept nogil:
        """Return when something is to be done for a client though nothing happens."""
        if client.state == ASKED or client.state == TAKEN:
            return max(client.asked_ns, self.tick_ns) + client.patience_ns
        return client.until_ns

    cdef bint accept(self, int64_t at_ns) noexcept nogil:
        """Accept one client of this user or root. A full server gives up the client that has been idle longest.

        Return whether there was one.
        """
        cdef Client *chosen = NULL
        cdef Client *client
        cdef int at, fd = accept4(self.listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        cdef long user
        if fd < 0:
            if errno != EAGAIN and errno != EINTR:
                self.accept_from_ns = at_ns + ACCEPT_AGAIN_NS
            return False
        user = peer_user(fd)
        if user != 0 and user != <long>geteuid():
            self.refused += 1
            close(fd)
            return True
        for at in range(MOST_CLIENTS):
            client = &self.clients[at]
            if client.state == FREE:
                chosen = client
                break
            if client.state == READING and (chosen is NULL or client.until_ns < chosen.until_ns):
                chosen = client
        if chosen is NULL:
            self.refused += 1
            close(fd)
            return True
        if chosen.state != FREE:
            self.drop(chosen)
        self.accepted += 1
        chosen.fd, chosen.state, chosen.until_ns, chosen.is_last = fd, READING, at_ns + IDLE_NS, False
        return True

    cdef void receive(self, Client *client, int64_t at_ns) noexcept nogil:
        """Take what has arrived, and look for the end of a line."""
        cdef Py_ssize_t got
        if not reserve(&client.received, CHUNK_BYTES):
            self.drop(client)
            return
        got = recv(client.fd, client.received.at + client.received.size_bytes, CHUNK_BYTES, 0)
        if got < 0 and errno in (EAGAIN, EINTR):
            return
        if got <= 0:
            self.drop(client)
            return
        client.received.size_bytes += got
        client.received.at[client.received.size_bytes] = 0
        client.until_ns = min(client.until_ns, at_ns + PROGRESS_NS)
        self.look_for_line(client, at_ns)

    cdef void look_for_line(self, Client *client, int64_t at_ns) noexcept nogil:
        """Have Python answer the first line, if one is complete."""
        cdef char *end = <char *>memchr(client.received.at, b"\n", client.received.size_bytes)
        if client.received.size_bytes == 0:
            return
        if end is NULL and client.received.size_bytes <= MOST_LINE_BYTES:
            return
        if end is NULL or end - client.received.at > MOST_LINE_BYTES:
            put(&client.unsent, TOO_LONG)
            client.state, client.sent_bytes, client.is_last = SENDING, 0, True
            client.until_ns = at_ns + PROGRESS_NS
            self.wake(self.wake_fd)
            return
        client.line_bytes = end - client.received.at
        self.last_number += 1
        client.number, client.state, client.asked_ns = self.last_number, ASKED, at_ns
        client.patience_ns = patience_of(client)
        client.until_ns = NEVER_NS
        self.wake(self.ask_fd)

    cdef void send(self, Client *client, int64_t at_ns) noexcept nogil:
        """Send as much of the answer as the socket takes. Afterwards the client may send its next line."""
        cdef size_t left_bytes = client.unsent.size_bytes - client.sent_bytes
        cdef Py_ssize_t sent = send_bytes(client.fd, client.unsent.at + client.sent_bytes, left_bytes, MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                self.drop(client)
            return
        client.sent_bytes += sent
        client.until_ns = at_ns + PROGRESS_NS
        if client.sent_bytes < client.unsent.size_bytes:
            return
        if client.is_last:
            self.drop(client)
            return
        release(&client.unsent)
        client.received.size_bytes -= client.line_bytes + 1
        memmove(client.received.at, client.received.at + client.line_bytes + 1, client.received.size_bytes + 1)
        client.state, client.number = READING, 0
        client.until_ns = at_ns + (PROGRESS_NS if client.received.size_bytes else IDLE_NS)
        self.look_for_line(client, at_ns)

    cdef void drop(self, Client *client) noexcept nogil:
        """Close a connection, and free what it had."""
        close(client.fd)
        release(&client.received)
        release(&client.unsent)
        client.fd, client.state, client.number = -1, FREE, 0

    cdef void drop_late(self, int64_t at_ns) noexcept nogil:
        """Drop each client whose time is over."""
        cdef int at
        for at in range(MOST_CLIENTS):
            if self.clients[at].state in (READING, SENDING) and at_ns >= self.clients[at].until_ns:
                self.drop(&self.clients[at])

    cdef Client *asked_by(self, uint64_t number) noexcept nogil:
        """Return the client whose request with this number Python works on; NULL if it is gone or answered."""
        cdef int at
        for at in range(MOST_CLIENTS):
            if self.clients[at].number == number and self.clients[at].state in (TAKEN, HELD):
                return &self.clients[at]
        return NULL

    cdef bint is_starved(self) noexcept nogil:
        """Return whether the answering thread is on a CPU or waits for one: a thread that waits for the GIL sleeps."""
        cdef ThreadState found
        return self.stacks.answering and read_thread(self.stacks.answering, &found) and found.state == b"R"

    cdef void answer_partially(self) noexcept nogil:
        """Answer each client whose patience is over, since Python has not had the GIL for as long."""
        cdef LoopReading[MOST_LOOPS] loops
        cdef Client *client
        cdef Text text
        cdef int at, loop_count
        cdef uint64_t number
        cdef int64_t at_ns = now_ns(), waited_ns
        cdef bint wants_stacks
        for at in range(MOST_CLIENTS):
            pthread_mutex_lock(&self.lock)
            client = &self.clients[at]
            if client.state not in (ASKED, TAKEN) or at_ns < self.next_ns(client):
                pthread_mutex_unlock(&self.lock)
                continue
            number, waited_ns = client.number, at_ns - max(client.asked_ns, self.tick_ns)
            if waited_ns < STARVED_NS and self.is_starved():
                # it lacks a CPU, or works: not the GIL
                client.patience_ns += PATIENCE_NS
                pthread_mutex_unlock(&self.lock)
                continue
            wants_stacks = asks_for_stacks(client)
            loop_count = read_loops(self.loops, loops)
            pthread_mutex_unlock(&self.lock)
            memset(&text, 0, sizeof(Text))
            put_partial_answer(
                &text, loops, loop_count, self.pid, waited_ns, &self.stacks if wants_stacks else NULL
            )
            pthread_mutex_lock(&self.lock)
            if client.number == number and client.state in (ASKED, TAKEN) and not text.is_cut:
                client.unsent, client.sent_bytes, client.state = text, 0, SENDING
                client.until_ns = now_ns() + PROGRESS_NS
                self.partial += 1
                self.send(client, now_ns())
            else:
                release(&text)
            pthread_mutex_unlock(&self.lock)


cdef int64_t patience_of(const Client *client) noexcept nogil:
    """Return the client's `"patience_ms"`, at most 10 s; without one 60 ms."""
    cdef const char *at = strstr(client.received.at, b'"patience_ms"')
    if at is NULL:
        return PATIENCE_NS
    at += 13
    while at[0] == b" " or at[0] == b":":
        at += 1
    return <int64_t>min(max(atoi(at), 0), <int>MOST_PATIENCE_MS) * 1_000_000


cdef bint asks_for_stacks(const Client *client) noexcept nogil:
    """Return whether the line's command is `stacks`."""
    cdef const char *at = strstr(client.received.at, b'"command"')
    if at is NULL:
        return False
    at += 9
    while at[0] == b" " or at[0] == b":":
        at += 1
    return strstr(at, b'"stacks"') is at
