from penstock._core._sys.datagram cimport mmsghdr
from penstock._core._sys.socket cimport iovec, sockaddr_storage

cdef enum:
    # Datagrams for each call. Beyond this many a call more costs next to nothing for each.
    MOST_DATAGRAMS = 64
    # A UDP datagram has at most 65,527 bytes, and what the kernel joins of them as many.
    UDP_SLOT_BYTES = 64 * 1024
    # As much as asyncio receives: a Unix datagram may be larger.
    LARGE_SLOT_BYTES = 256 * 1024
    CONTROL_ROOM_BYTES = 64


cdef class ReceiveVector:
    # Whether a transport delivers from it: no other may receive into it until then.
    cdef bint is_lent
    cdef char *memory
    cdef size_t slot_bytes
    cdef bint takes_control
    # The slots, those of them that the last call has filled, and the next one to deliver.
    cdef int slots, used, at
    # How much of that one is delivered: the kernel may have joined several datagrams.
    cdef size_t offset_bytes
    cdef mmsghdr[MOST_DATAGRAMS] messages
    cdef iovec[MOST_DATAGRAMS] parts
    cdef sockaddr_storage[MOST_DATAGRAMS] names
    cdef char[MOST_DATAGRAMS][CONTROL_ROOM_BYTES] control

    cdef int arrange(self, size_t slot_bytes, bint takes_control) noexcept
    cdef int receive(self, int fd, int count, size_t slot_bytes, bint takes_control) noexcept
    cdef int renew(self) noexcept
    cdef bint has_more(self) noexcept
    cdef bint is_cut_off(self) noexcept
    cdef const char *next(self, size_t *size_bytes) noexcept
    cdef size_t largest(self) noexcept


cdef int slots_of(size_t slot_bytes) noexcept
