from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

cdef extern from *:
    int leading_zeros "__builtin_clzll"(unsigned long long word) noexcept
    int trailing_zeros "__builtin_ctzll"(unsigned long long word) noexcept

cdef enum:
    # Four classes for each power of two: sizes in one class differ by less than a quarter.
    RANKS = 256


cdef struct Account:
    Account *next
    Account *previous
    # Borrowed: the owner of the bytes, whose `_budget_changed()` is called when it is paused or resumed.
    PyObject *owner
    size_t size_bytes
    # Its size at the last `account`: bytes that only move do not count as growth.
    size_t accounted_bytes
    # The size class, 0: empty.
    int rank
    bint is_paused


cdef class Budget:
    cdef size_t total_bytes, most_bytes, high_bytes, low_bytes
    cdef size_t paused_count, pauses_count
    # Accounts with bytes by class, and the classes that have any: of running accounts, of paused ones.
    cdef Account *free[RANKS]
    cdef Account *paused[RANKS]
    cdef uint64_t free_ranks[4]
    cdef uint64_t paused_ranks[4]

    cdef void move(self, Account *account, int rank) noexcept
    cdef void link(self, Account *account) noexcept
    cdef void unlink(self, Account *account) noexcept
    cdef int heaviest(self) noexcept
    cdef int lightest_paused(self) noexcept
    cdef int account(self, Account *account) except -1
    cdef int balance(self, bint may_pause) except -1
    cdef int pause(self, Account *account) except -1
    cdef int resume(self, Account *account) except -1
    cdef int leave(self, Account *account) except -1


# The one that `pressure.buffer_bytes` sets: of all loops of the process.
cdef Budget shared


cdef inline int rank_of(size_t size_bytes) noexcept:
    """The size class: the place of the highest bit, and the two bits after it."""
    cdef int place
    if size_bytes < 4:
        return <int>size_bytes
    place = 63 - leading_zeros(size_bytes)
    return ((place - 1) << 2) | <int>((size_bytes >> (place - 2)) & 3)


cdef inline int charge(Budget budget, Account *account, Py_ssize_t growth_bytes) noexcept:
    """Add bytes, or subtract them if negative. No account is paused or resumed before `account`."""
    cdef int rank
    budget.total_bytes += growth_bytes
    if budget.total_bytes > budget.most_bytes:
        budget.most_bytes = budget.total_bytes
    account.size_bytes += growth_bytes
    rank = rank_of(account.size_bytes)
    if rank != account.rank:
        budget.move(account, rank)
    return 0
