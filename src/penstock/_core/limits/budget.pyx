"""The budget: how many bytes the buffers of all connections of the process may hold, and which are paused beyond that.

Above the high mark the heaviest connections are paused: each growth there pauses the heaviest running one, until the
total is at the low mark. An empty connection, or one lighter than a running one, is resumed before: no connection is
paused while a heavier one runs. Sizes are compared by class, four to a power of two, and each class has its list: no
step looks at more than a few words, however many connections there are.

Loops of several threads share a budget under the GIL. It calls nothing but `_budget_changed()` of an account's owner,
which acts on it later, in its own loop. Ownership: the budget borrows accounts and owners; an owner removes its
account by `leave` before it goes.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

# Beyond any total.
cdef size_t UNBOUNDED = <size_t>1 << 62


cdef class Budget:
    """A count of buffered bytes with two marks, in bytes; without marks it only counts."""

    def __cinit__(self):
        self.high_bytes = self.low_bytes = UNBOUNDED

    def set_marks(self, high=None, low=None):
        """Pause from `high` bytes on, until `low`; None: never. ValueError if low > high."""
        if high is None:
            self.high_bytes = self.low_bytes = UNBOUNDED
            return
        low = high * 4 // 5 if low is None else low
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high_bytes, self.low_bytes = high, low

    @property
    def marks(self):
        """`(high, low)` in bytes, or None."""
        return None if self.high_bytes == UNBOUNDED else (self.high_bytes, self.low_bytes)

    @property
    def total(self):
        """Bytes buffered now."""
        return self.total_bytes

    @property
    def most(self):
        """The most bytes that were ever buffered at once."""
        return self.most_bytes

    @property
    def paused_now(self):
        """How many are paused now."""
        return self.paused_count

    @property
    def pauses(self):
        """How often one was paused, as a count."""
        return self.pauses_count

    cdef int account(self, Account *account) except -1:
        """Account for the change of an account: pause and resume what follows from it."""
        cdef bint may_pause = account.size_bytes > account.accounted_bytes
        account.accounted_bytes = account.size_bytes
        if self.paused_count == 0 and self.total_bytes <= self.high_bytes:
            return 0
        if account.is_paused and (account.size_bytes == 0 or account.rank < self.heaviest()):
            self.resume(account)
            may_pause = True
        return self.balance(may_pause)

    cdef int balance(self, bint may_pause) except -1:
        """Pause and resume. Each step starts anew, for an owner's code may change anything."""
        cdef int rank
        while self.paused_count and self.total_bytes <= self.low_bytes:
            self.resume(self.paused[self.lightest_paused()])
        if may_pause and self.total_bytes > self.high_bytes:
            rank = self.heaviest()
            if rank:
                self.pause(self.free[rank])
        while self.paused_count and self.heaviest() > self.lightest_paused():
            if self.total_bytes <= self.high_bytes:
                self.resume(self.paused[self.lightest_paused()])
            rank = self.heaviest()
            if rank == 0:
                break
            self.pause(self.free[rank])
        return 0

    cdef int pause(self, Account *account) except -1:
        self.unlink(account)
        account.is_paused = True
        self.link(account)
        self.paused_count += 1
        self.pauses_count += 1
        (<object>account.owner)._budget_changed()
        return 0

    cdef int resume(self, Account *account) except -1:
        self.unlink(account)
        account.is_paused = False
        self.link(account)
        self.paused_count -= 1
        (<object>account.owner)._budget_changed()
        return 0

    cdef int leave(self, Account *account) except -1:
        """Remove an account with all its bytes, without a call to its owner."""
        self.unlink(account)
        self.total_bytes -= account.size_bytes
        self.paused_count -= account.is_paused
        account.size_bytes = account.accounted_bytes = 0
        account.rank, account.is_paused = 0, False
        return 0

    cdef void move(self, Account *account, int rank) noexcept:
        self.unlink(account)
        account.rank = rank
        self.link(account)

    cdef void link(self, Account *account) noexcept:
        cdef int rank = account.rank
        cdef Account **head
        # An empty account is in no list, unless it is paused: then it must be found, to be resumed.
        if account.is_paused:
            head = &self.paused[rank]
            self.paused_ranks[rank >> 6] |= <uint64_t>1 << (rank & 63)
        elif rank:
            head = &self.free[rank]
            self.free_ranks[rank >> 6] |= <uint64_t>1 << (rank & 63)
        else:
            return
        account.previous, account.next = NULL, head[0]
        if head[0] is not NULL:
            head[0].previous = account
        head[0] = account

    cdef void unlink(self, Account *account) noexcept:
        cdef int rank = account.rank
        cdef Account **head = &self.paused[rank] if account.is_paused else &self.free[rank]
        cdef uint64_t *ranks = &self.paused_ranks[0] if account.is_paused else &self.free_ranks[0]
        if account.next is not NULL:
            account.next.previous = account.previous
        if account.previous is not NULL:
            account.previous.next = account.next
        elif head[0] is account:
            head[0] = account.next
            if head[0] is NULL:
                ranks[rank >> 6] &= ~(<uint64_t>1 << (rank & 63))
        account.next = account.previous = NULL

    cdef int heaviest(self) noexcept:
        """Return the class of the heaviest running account; 0 if all with bytes are paused."""
        cdef int word
        for word in range(3, -1, -1):
            if self.free_ranks[word]:
                return word * 64 + 63 - leading_zeros(self.free_ranks[word])
        return 0

    cdef int lightest_paused(self) noexcept:
        """Return the class of the lightest paused account; there must be one."""
        cdef int word
        for word in range(4):
            if self.paused_ranks[word]:
                return word * 64 + trailing_zeros(self.paused_ranks[word])
        return RANKS - 1


shared = Budget()


def shared_budget():
    """The budget of the process."""
    return shared
