"""The frames of the running thread: whether CPython's private struct of a frame is laid out as it was compiled.

It is verified at import, on two frames of known code, by comparing words: nothing is followed that has not been
compared. Where that fails, `sys._getframe` gives the same answers at ten times the cost.
"""

import sys

from penstock._core._sys.frames cimport Frame, code_word, frame_lasti, previous_frame, top_frame
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

# Frames of real Python code: the functions of this module are C.
PROBES = """
def inner(see):
    see()
    return see.__self__.compare(inner, outer)

def outer(see):
    see()
    return inner(see)
"""


cdef class Comparison:
    """The frames that were on top at each call of `see`, and their comparison with what Python reports."""
    cdef Frame *seen[2]
    cdef int count

    def see(self):
        """Note the frame on top, without reading from it."""
        if self.count < 2:
            self.seen[self.count] = top_frame()
            self.count += 1

    def compare(self, inner, outer):
        """Return True if the noted frames are those of `outer` and `inner`, linked, at the right instruction."""
        if self.count < 2 or self.seen[0] is NULL or self.seen[1] is NULL or self.seen[1] is not top_frame():
            return False
        if not names(self.seen[1], inner) or not names(self.seen[0], outer):
            return False
        if previous_frame(self.seen[1]) is not self.seen[0]:
            return False
        frame = sys._getframe()
        return frame_lasti(self.seen[1]) == frame.f_lasti and frame_lasti(self.seen[0]) == frame.f_back.f_lasti


cdef bint names(Frame *frame, object function) except -1:
    return code_word(frame) == <uintptr_t><PyObject *>function.__code__


def verify():
    """Return True if the frames of this interpreter are laid out as they were compiled."""
    namespace = {}
    exec(PROBES, namespace)
    return namespace["outer"](Comparison().see)


def frames_of_python(most):
    """Return the innermost frames, at most `most`, as (code, instruction) pairs, by frame objects."""
    found, frame = [], sys._getframe()
    while frame is not None and len(found) < most:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return found


is_verified = verify()
