"""The control of a reactor: the methods and figures that the runtime uses beside asyncio's own interface.

`penstock.loop.native.native_core` gives it, with its type. Every method is called in the loop's own thread, or while
the loop does not run, unless it says otherwise.

Ownership: a control owns a reference to its reactor and nothing else; any number of controls may exist.
"""

from libc.limits cimport INT_MAX
from libc.stdint cimport SIZE_MAX, int64_t

from penstock._core cimport backlog
from penstock._core._sys.pipe cimport NO_PIPE, pipe_kind
from penstock._core._sys.socket cimport IPPROTO_TCP
from penstock._core.datagrams.endpoint cimport DatagramEndpoint
from penstock._core.events.clock cimport now_ns
from penstock._core.net.address cimport protocol_below, send_at_once
from penstock._core.limits.budget cimport Budget
from penstock._core.net.listen cimport Listener
from penstock._core.limits.peer_timeouts cimport TimeoutBounds
from penstock._core.net.stream cimport Stream
from penstock._core.net.watch cimport is_idle
from penstock._core.overload.lag cimport Lag
from penstock._core.pipes.reader cimport ReadPipe
from penstock._core.pipes.writer cimport WritePipe
from penstock._core.reactor cimport Reactor
from penstock._core.tasks.probe cimport COUNT, OFF
from penstock._core.tasks.scan cimport TaskScan
from penstock._core.tasks.rows import QueueFigures


cdef class ReactorControl:
    """The native core of one loop."""

    cdef Reactor reactor

    def __cinit__(self, Reactor reactor not None):
        self.reactor = reactor

    # --- polling

    def configure(
        self,
        *,
        int poll_every_turns,
        int64_t poll_every_us,
        int64_t spin_us,
        int64_t timer_slack_us,
        int read_budget_bytes,
        int accept_batch,
    ):
        """Set the poll policy and the budgets of one turn: in turns, microseconds, bytes and connections."""
        cdef Reactor reactor = self.reactor
        reactor.poll_every_turns, reactor.poll_every_ns = poll_every_turns, poll_every_us * 1000
        reactor.spin_ns = spin_us * 1000
        reactor.timers.slack_s = timer_slack_us / 1e6
        reactor.io.read_budget_bytes = read_budget_bytes
        reactor.io.accept_batch = reactor.io.accept_now = accept_batch

    def expect_event(self, int64_t spin_ns):
        """Have the next blocking poll spin for `spin_ns` nanoseconds before it sleeps: an event is about to arrive."""
        self.reactor.soon_ns = spin_ns

    def dispose(self):
        """Release every kernel object and reference of the reactor. The loop must be closed."""
        self.reactor.dispose()

    # --- overload

    def watch_lag(self, Lag lag, arrival=None, bint closes_abandoned=True):
        """Defer reads while the loop is behind, and call `lag.report` at each change; None: never.

        `arrival` is a context variable for the time at which the data of a deferred read came, in seconds on the loop's
        clock. `closes_abandoned`: a client that shuts its side down while it is deferred is taken to have left.
        """
        cdef Reactor reactor = self.reactor
        reactor.lag, reactor.io.arrival, reactor.io.closes_abandoned = lag, arrival, closes_abandoned
        reactor.observes_lag = lag is not None or reactor.on_room is not None
        reactor.slept_ns, reactor.deferred_before = 0, 0
        if lag is None:
            reactor.io.counts_reads = reactor.accepts_in_turn = False
            reactor.io.accept_now, reactor.io.defer_now = reactor.io.accept_batch, -1
            reactor.io.backlog_limit = SIZE_MAX
            backlog.admit(reactor.io, None, backlog.count(reactor.io))
        else:
            reactor.io.counts_reads = True
            lag.stand_still()

    def close_abandoned(self, int64_t older_ns):
        """Close the deferred connections that are older than `older_ns` nanoseconds and whose client has left.

        Return their number.
        """
        return backlog.close_abandoned(self.reactor.io, now_ns() - older_ns)

    def accepts_now(self):
        """Return how many connections this turn may accept from one listening socket; None: the loop is not behind."""
        cdef Reactor reactor = self.reactor
        return reactor.io.accept_now if reactor.lag is not None and reactor.lag.is_deferring else None

    @property
    def deferred_reads(self):
        """The deferred reads."""
        return self.reactor.io.deferred_reads

    @property
    def deferred_accepts(self):
        """The deferred accepts."""
        return self.reactor.io.deferred_accepts

    @property
    def sheds(self):
        """The counts of connections that were shed, and their listener."""
        return self.reactor.sheds

    @property
    def shed_unread_count(self):
        """The number of connections that were answered unread, for the backlog was full."""
        return self.reactor.io.shed_count + self.reactor.io.deferred_accepts.shed

    # --- connections

    def limit_connections(self, Budget budget, TimeoutBounds bounds):
        """Set the budget and the timeouts of streams that are made from now on; None: no such limit."""
        self.reactor.io.budget, self.reactor.io.bounds = budget, bounds

    @property
    def limits_connections(self):
        """Whether new streams have a budget or timeouts."""
        return self.reactor.io.budget is not None or self.reactor.io.bounds is not None

    @property
    def limits_bytes(self):
        """Whether new streams have a budget."""
        return self.reactor.io.budget is not None

    @property
    def on_disconnect(self):
        """`on_disconnect(transport, reason, bytes, seconds)` returns the exception for `connection_lost` of a slow peer."""
        return self.reactor.io.on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, on_disconnect):
        self.reactor.io.on_disconnect = on_disconnect

    @property
    def wheel(self):
        """The timer wheel of connection deadlines."""
        return self.reactor.io.wheel

    def make_stream(self, sock, protocol, waiter=None, *, extra=None, server=None, context=None):
        """Make the native transport over a connected stream socket."""
        return Stream(self.reactor, self.reactor.io, sock, sock.fileno(), protocol, waiter, extra, server, context)

    def make_connected(self, sock, protocol, waiter=None, context=None):
        """Make the native transport over an internet socket that has just been made and connected.

        RuntimeError if another transport has its descriptor.
        """
        cdef int fd = sock.fileno()
        # whatever was asked for: the system may make MPTCP of TCP
        cdef bint is_plain = protocol_below(fd) == IPPROTO_TCP
        former = self.reactor.io.poller.at(fd)
        if isinstance(former, Stream) and not former.is_closing():
            raise RuntimeError(f"File descriptor {sock!r} is used by transport {former!r}")
        send_at_once(fd)
        return Stream(
            self.reactor, self.reactor.io, sock, fd, protocol, waiter, context=context, is_plain=is_plain, is_ours=True
        )

    def make_listener(self, sock, protocol_factory, server=None, context=None):
        """Make the native acceptor over a listening stream socket. It accepts after `resume()`."""
        return Listener(self.reactor, self.reactor.io, sock, protocol_factory, server, context)

    def make_read_pipe(self, pipe, protocol, waiter=None, extra=None):
        """Make the native transport over the reading end of a pipe; None for files that asyncio's code has to serve."""
        if pipe_kind(pipe.fileno()) == NO_PIPE:
            return None
        return ReadPipe(self.reactor, self.reactor.io, pipe, protocol, waiter, extra)

    def make_write_pipe(self, pipe, protocol, waiter=None, extra=None):
        """Make the native transport over the writing end of a pipe; None for files that asyncio's code has to serve."""
        if pipe_kind(pipe.fileno()) == NO_PIPE:
            return None
        return WritePipe(self.reactor, self.reactor.io, pipe, protocol, waiter, extra)

    def make_datagrams(self, sock, protocol, address=None, waiter=None, extra=None):
        """Make the native transport over a UDP or Unix datagram socket; `address` is its only receiver, or None."""
        return DatagramEndpoint(self.reactor, self.reactor.io, sock, protocol, address, waiter, extra)

    def source_at(self, fd):
        """Return the watch, transport or listener at a descriptor, or None."""
        return self.reactor.io.poller.at(fd) if 0 <= fd <= INT_MAX else None

    def sources(self):
        """Return every watch, transport and listener by descriptor, without the loop's own."""
        own = self.reactor.waker_source, self.reactor.io.lingering
        every = self.reactor.io.poller.sources()
        return {fd: source for fd, source in every.items() if source not in own and not is_idle(source)}

    # --- tasks

    @property
    def probe(self):
        """The probe, which records the loop's tasks."""
        return self.reactor.probe

    def limit_tasks(self, size_t limit, on_full=None):
        """Call `on_full(coro)` before a task is made while `limit` tasks live; its exception is `create_task`'s. 0: never."""
        cdef Reactor reactor = self.reactor
        reactor.most_tasks, reactor.on_full = limit, on_full
        reactor.probe.least_level = COUNT if limit else OFF
        reactor.probe.set_level(reactor.probe.level)

    def watch_room(self, on_room):
        """Call `on_room()` in each turn in which fewer tasks live than `limit_tasks` allows; None: no more."""
        self.reactor.on_room = on_room
        self.reactor.observes_lag = self.reactor.lag is not None or on_room is not None

    def snapshot_tasks(self):
        """Return a copy of the record of each live task."""
        cdef int64_t at_ns = now_ns()
        self.reactor.probe.mark_ready(self.reactor.io.ready)
        return self.reactor.probe.ledger.snapshot(at_ns)

    def begin_scan(self):
        """Return a scan of the records of live tasks, to be filled by `TaskScan.take`."""
        cdef int64_t at_ns = now_ns()
        self.reactor.probe.mark_ready(self.reactor.io.ready)
        return TaskScan(at_ns)

    def queue_figures(self):
        """Return the lengths of the loop's queues, as `QueueFigures`."""
        cdef int64_t since_ns = self.reactor.io.ready.oldest_ns()
        return QueueFigures(
            self.reactor.io.ready.count, now_ns() - since_ns if since_ns else 0, self.reactor.timers.count
        )
