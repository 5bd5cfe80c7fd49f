"""The memory into which a reactor's datagrams are received, many for each system call.

Ownership: a reactor's I/O context owns one vector, and the vector its memory. Pages that no datagram has reached take up
nothing.
"""

from libc.string cimport memset

from penstock._core._sys.datagram cimport CONTROL_BYTES, joined_bytes, map_memory, mmsghdr, munmap, receive_many
from penstock._core._sys.socket cimport MSG_TRUNC, sockaddr_storage

cdef enum:
    # Slots begin at different places of their pages: else they share a few lines of the processor's cache.
    STAGGER_BYTES = 5 * 64
    MEMORY_BYTES = MOST_DATAGRAMS * (UDP_SLOT_BYTES + STAGGER_BYTES)


cdef class ReceiveVector:
    """Slots for datagrams and their senders' names."""

    def __cinit__(self):
        self.memory = map_memory(MEMORY_BYTES)
        if self.memory is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.memory is not NULL:
            munmap(self.memory, MEMORY_BYTES)

    cdef int arrange(self, size_t slot_bytes, bint takes_control) noexcept:
        """Divide the memory into slots of this size."""
        cdef int i
        self.slot_bytes, self.takes_control = slot_bytes, takes_control
        self.slots = self.used = slots_of(slot_bytes)
        memset(self.messages, 0, sizeof(self.messages))
        for i in range(self.slots):
            self.parts[i].iov_base, self.parts[i].iov_len = self.memory + i * (slot_bytes + STAGGER_BYTES), slot_bytes
            self.messages[i].msg_hdr.msg_iov, self.messages[i].msg_hdr.msg_iovlen = &self.parts[i], 1
            self.messages[i].msg_hdr.msg_name = &self.names[i]
            if takes_control:
                self.messages[i].msg_hdr.msg_control = self.control[i]
        return self.renew()

    cdef int renew(self) noexcept:
        """Give the names and the control data of used slots their room back: the kernel writes their sizes there."""
        cdef int i
        for i in range(self.used):
            self.messages[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
            self.messages[i].msg_hdr.msg_controllen = CONTROL_BYTES if self.takes_control else 0
        self.used = self.at = 0
        self.offset_bytes = 0
        return 0

    cdef int receive(self, int fd, int count, size_t slot_bytes, bint takes_control) noexcept:
        """Receive up to `count` datagrams. Return their number, or minus the error's."""
        cdef int got
        if self.slot_bytes != slot_bytes or self.takes_control != takes_control:
            self.arrange(slot_bytes, takes_control)
        else:
            self.renew()
        got = receive_many(fd, self.messages, min(count, self.slots))
        self.used = max(got, 0)
        return got

    cdef bint has_more(self) noexcept:
        """Return whether a datagram is left to deliver."""
        return self.at < self.used

    cdef bint is_cut_off(self) noexcept:
        """Return whether the next datagram was too long for its slot."""
        return self.messages[self.at].msg_hdr.msg_flags & MSG_TRUNC != 0

    cdef const char *next(self, size_t *size_bytes) noexcept:
        """Go on to the next datagram. Return where it begins, and its size."""
        cdef mmsghdr *message = &self.messages[self.at]
        cdef const char *start = <const char *>self.parts[self.at].iov_base + self.offset_bytes
        cdef size_t rest_bytes = message.msg_len - self.offset_bytes
        cdef size_t joined = joined_bytes(&message.msg_hdr) if self.takes_control else 0
        if 0 < joined < rest_bytes:
            size_bytes[0] = joined
            self.offset_bytes += joined
        else:
            size_bytes[0] = rest_bytes
            self.offset_bytes = 0
            self.at += 1
        return start

    cdef size_t largest(self) noexcept:
        """Return the size of the largest datagram that the last call has received."""
        cdef int i
        cdef size_t found_bytes = 0
        for i in range(self.used):
            found_bytes = max(found_bytes, <size_t>self.messages[i].msg_len)
        return found_bytes


cdef int slots_of(size_t slot_bytes) noexcept:
    """Return how many slots of this size there are."""
    return min(MEMORY_BYTES // (slot_bytes + STAGGER_BYTES), <size_t>MOST_DATAGRAMS)
