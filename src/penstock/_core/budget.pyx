"""The budget: how many bytes may wait in the buffers of all connections of the process, and who waits when it is spent.

Above the high mark the heaviest are held: each that grows there makes the heaviest that is not held be held, until the
total is at the low mark. Whoever is empty, or lighter than one that is not held, is let go before: so nobody is held
while a heavier one is not. Sizes are compared by class, four to a power of two, and each class has its list: no step
looks at more than a few words, however many connections there are.

Loops of several threads share a budget under the GIL; it calls nobody but `_budget_turned()` of an account's owner,
which is to act on it later, in its own loop.
Ownership: the budget borrows accounts and owners; whoever has an account takes it out by `leave` before it goes.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

# Beyond any total.
cdef size_t UNBOUNDED = <size_t>1 << 62


cdef class Budget:
    """A count of buffered bytes with two marks, in bytes; without marks it only counts."""

    def __cinit__(self):
        self.high_bytes = self.low_bytes = UNBOUNDED

    def set_marks(self, high=None, low=None):
        """Hold from `high` bytes on, until `low`; None: never. ValueError if low > high."""
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
    def held_now(self):
        """How many are held now."""
        return self.held_count

    @property
    def holds(self):
        """How often one was held, as a count."""
        return self.holds_count

    cdef int settle(self, Account *account) except -1:
        """Whom to hold and whom to let go, now that an account has changed."""
        cdef bint may_hold = account.size_bytes > account.settled_bytes
        account.settled_bytes = account.size_bytes
        if self.held_count == 0 and self.total_bytes <= self.high_bytes:
            return 0
        if account.is_held and (account.size_bytes == 0 or account.rank < self.heaviest()):
            self.let_go(account)
            may_hold = True
        return self.balance(may_hold)

    cdef int balance(self, bint may_hold) except -1:
        """Looks anew after each step: telling an owner runs code that may change anything."""
        cdef int rank
        while self.held_count and self.total_bytes <= self.low_bytes:
            self.let_go(self.held[self.lightest_held()])
        if may_hold and self.total_bytes > self.high_bytes:
            rank = self.heaviest()
            if rank:
                self.hold(self.free[rank])
        while self.held_count and self.heaviest() > self.lightest_held():
            if self.total_bytes <= self.high_bytes:
                self.let_go(self.held[self.lightest_held()])
            rank = self.heaviest()
            if rank == 0:
                break
            self.hold(self.free[rank])
        return 0

    cdef int hold(self, Account *account) except -1:
        self.unlink(account)
        account.is_held = True
        self.link(account)
        self.held_count += 1
        self.holds_count += 1
        (<object>account.owner)._budget_turned()
        return 0

    cdef int let_go(self, Account *account) except -1:
        self.unlink(account)
        account.is_held = False
        self.link(account)
        self.held_count -= 1
        (<object>account.owner)._budget_turned()
        return 0

    cdef int leave(self, Account *account) except -1:
        """Takes an account out with all its bytes; its owner is told nothing."""
        self.unlink(account)
        self.total_bytes -= account.size_bytes
        self.held_count -= account.is_held
        account.size_bytes = account.settled_bytes = 0
        account.rank, account.is_held = 0, False
        return 0

    cdef void move(self, Account *account, int rank) noexcept:
        self.unlink(account)
        account.rank = rank
        self.link(account)

    cdef void link(self, Account *account) noexcept:
        cdef int rank = account.rank
        cdef Account **head
        # An empty account is in no list, unless it is held: then it must be found, to be let go.
        if account.is_held:
            head = &self.held[rank]
            self.held_ranks[rank >> 6] |= <uint64_t>1 << (rank & 63)
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
        cdef Account **head = &self.held[rank] if account.is_held else &self.free[rank]
        cdef uint64_t *ranks = &self.held_ranks[0] if account.is_held else &self.free_ranks[0]
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
        """The class of the heaviest that is not held, 0 if all that have bytes are."""
        cdef int word
        for word in range(3, -1, -1):
            if self.free_ranks[word]:
                return word * 64 + 63 - leading_zeros(self.free_ranks[word])
        return 0

    cdef int lightest_held(self) noexcept:
        """The class of the lightest that is held; somebody must be."""
        cdef int word
        for word in range(4):
            if self.held_ranks[word]:
                return word * 64 + trailing_zeros(self.held_ranks[word])
        return RANKS - 1


shared = Budget()


def shared_budget():
    """The budget of the process."""
    return shared


@cython.no_gc_clear
cdef class Stake:
    """Bytes that something other than a transport keeps; `owner._budget_turned()` is called when it is held or let go.

    Ownership: the stake owns its owner, and leaves the budget when it is closed or goes.
    """
    cdef Account account
    cdef Budget budget
    cdef object owner

    def __cinit__(self, Budget budget not None, owner):
        self.budget, self.owner = budget, owner
        self.account.owner = <PyObject *>owner

    def __dealloc__(self):
        self.budget.leave(&self.account)

    def set(self, size_t size_bytes):
        """Say how many bytes there are now."""
        charge(self.budget, &self.account, <Py_ssize_t>size_bytes - <Py_ssize_t>self.account.size_bytes)
        self.budget.settle(&self.account)

    def close(self):
        """Take all bytes out, for good."""
        self.budget.leave(&self.account)
        self.budget.balance(False)

    @property
    def held(self):
        """Whether it is to take in nothing more."""
        return self.account.is_held

    @property
    def rank(self):
        """The size class."""
        return self.account.rank
