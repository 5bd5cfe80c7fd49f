"""The clients of a server: its open transports, in a ring of links that are part of them.

It takes the place of asyncio's WeakSet, whose weak references cost as much as the rest of a short connection. Knows a
transport as `ServedSource`.

Ownership: nothing here owns a transport. A link leaves the ring before its transport is freed, and every link leaves
before the ring is.
"""

from weakref import WeakSet

from cpython.object cimport PyObject

from penstock._core.events.poller cimport Source


cdef class ServedSource(Source):
    """A transport, as the clients of a server know it."""

    def __dealloc__(self):
        cut(&self.link)

    cdef int join(self, Clients clients) noexcept:
        """Become a client, unless it is one already."""
        cdef ClientLink *link = &self.link
        if link.clients is not NULL:
            return 0
        link.source, link.clients = <PyObject *>self, <PyObject *>clients
        link.before, link.after = clients.ring.before, &clients.ring
        link.before.after = link.after.before = link
        clients.count += 1
        return 0

    cdef Clients part(self):
        """Be a client no more. Return the clients that it was one of, or None."""
        # a ring that is freed has cut its links off before
        cdef Clients clients = None if self.link.clients is NULL else <Clients>self.link.clients
        cut(&self.link)
        return clients


cdef int cut(ClientLink *link) noexcept:
    """Take a link out of its ring."""
    if link.clients is not NULL:
        (<Clients>link.clients).count -= 1
        link.before.after, link.after.before = link.after, link.before
        link.clients = NULL
    return 0


cdef class Clients:
    """The open transports of one server, with the methods of a set that asyncio's server calls."""

    def __cinit__(self):
        self.ring.before = self.ring.after = &self.ring

    def __dealloc__(self):
        cdef ClientLink *link = self.ring.after
        while link is not &self.ring:
            link.clients = NULL
            link = link.after

    cdef int notify(self) except -1:
        """Call `on_change`."""
        if self.on_change is not None:
            self.on_change()
        return 0

    cdef list sources(self):
        """Return every transport, in the order in which they came."""
        cdef list found = []
        cdef ClientLink *link = self.ring.after
        while link is not &self.ring:
            found.append(<object>link.source)
            link = link.after
        return found

    def add(self, client not None):
        """Add a transport of any kind."""
        if isinstance(client, ServedSource):
            (<ServedSource>client).join(self)
            return
        if self.others is None:
            self.others = WeakSet()
        self.others.add(client)

    def discard(self, client not None):
        """Remove a transport, if it is there."""
        if isinstance(client, ServedSource) and (<ServedSource>client).link.clients is <PyObject *>self:
            cut(&(<ServedSource>client).link)
        elif self.others is not None:
            self.others.discard(client)

    def copy(self):
        """Return the transports as a set."""
        return set(self)

    def __contains__(self, client):
        if isinstance(client, ServedSource):
            return (<ServedSource>client).link.clients is <PyObject *>self
        return self.others is not None and client in self.others

    def __iter__(self):
        return iter([*self.sources(), *(self.others or ())])

    def __len__(self):
        return self.count + (0 if self.others is None else len(self.others))
