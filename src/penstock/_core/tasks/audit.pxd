# The record of the newest blocking call of a loop's thread, written by the process's audit hook.
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #ifndef PENSTOCK_AUDITED
    #define PENSTOCK_AUDITED
    struct penstock_audited {
        /* the word of the heartbeat: when the running callback began, 0 between callbacks */
        const int64_t *callback_since_ns;
        /* index of the event in `EVENTS`, -1 before the first */
        int event;
        /* calls of this event in a row within one callback, when the first of them and the newest began */
        int count;
        int64_t first_ns, newest_ns;
    };
    #endif
    """
    ctypedef struct Audited "struct penstock_audited":
        const int64_t *callback_since_ns
        int event
        int count
        int64_t first_ns
        int64_t newest_ns


# Record the calls of this thread in `audited` from now on; NULL: no longer. The caller owns the memory.
cdef void follow_calls(Audited *audited) noexcept
# Add the process's hook, once.
cdef int install_hook() except -1
cdef object event_name(int event)
