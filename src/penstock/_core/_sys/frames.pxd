# The running thread's Python frames without making frame objects: `sys._getframe` costs ten times as much.
# CPython keeps them in a struct it does not publish; the few fields read here are laid out below, for each version.
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030C0000
    typedef struct penstock_frame {
        void *specials[4];
        PyObject *code;
        void *frame_object;
        struct penstock_frame *previous;
        _Py_CODEUNIT *last;
    } penstock_frame;
    #define penstock_top() ((penstock_frame *)PyThreadState_Get()->cframe->current_frame)
    #define PENSTOCK_CODE_FIELD(frame) (&(frame)->code)
    static PyObject *penstock_code(penstock_frame *frame) { return Py_NewRef(frame->code); }
    static int penstock_lasti(penstock_frame *frame) {
        PyCodeObject *code = (PyCodeObject *)frame->code;
        return (int)(frame->last - _PyCode_CODE(code)) * (int)sizeof(_Py_CODEUNIT);
    }
    #elif PY_VERSION_HEX < 0x030D0000
    typedef struct penstock_frame {
        void *code;
        struct penstock_frame *previous;
        void *specials[5];
        void *last;
        int stack_top;
        uint16_t return_offset;
        char owner;
    } penstock_frame;
    #define penstock_top() ((penstock_frame *)PyThreadState_Get()->cframe->current_frame)
    #define PENSTOCK_CODE_FIELD(frame) (&(frame)->code)
    static PyObject *penstock_code(penstock_frame *frame) {
        /* 3: C's own, between two runs of the interpreter, with a code object of its own */
        return frame->owner == 3 ? NULL : PyUnstable_InterpreterFrame_GetCode((struct _PyInterpreterFrame *)frame);
    }
    #elif PY_VERSION_HEX < 0x03100000
    typedef struct penstock_frame {
        void *executable;
        struct penstock_frame *previous;
    } penstock_frame;
    #define penstock_top() ((penstock_frame *)PyThreadState_Get()->current_frame)
    #define PENSTOCK_CODE_FIELD(frame) (&(frame)->executable)
    static PyObject *penstock_code(penstock_frame *frame) {
        return PyUnstable_InterpreterFrame_GetCode((struct _PyInterpreterFrame *)frame);
    }
    #else
    #error "the layout of Python's frames is not known for this version: see _sys/frames.pxd"
    #endif
    #if PY_VERSION_HEX >= 0x030C0000
    static int penstock_lasti(penstock_frame *frame) {
        return PyUnstable_InterpreterFrame_GetLasti((struct _PyInterpreterFrame *)frame);
    }
    #endif
    #define penstock_previous(frame) ((frame)->previous)
    /* The word that names the code object, which is not followed. From 3.14 on its two lowest bits are a tag. */
    static uintptr_t penstock_code_word(penstock_frame *frame) {
        uintptr_t word;
        memcpy(&word, PENSTOCK_CODE_FIELD(frame), sizeof word);
        return word & ~(uintptr_t)3;
    }
    """
    ctypedef struct Frame "penstock_frame":
        pass
    Frame *top_frame "penstock_top"() noexcept
    Frame *previous_frame "penstock_previous"(Frame *frame) noexcept
    # A new reference: a code object, or something else for a frame that is C's.
    PyObject *frame_code "penstock_code"(Frame *frame) noexcept
    # The address of the code object, read but not followed.
    uintptr_t code_word "penstock_code_word"(Frame *frame) noexcept
    # In bytes, as `frame.f_lasti`.
    int frame_lasti "penstock_lasti"(Frame *frame) noexcept
