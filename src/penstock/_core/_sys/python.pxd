# CPython's C interface where Cython's own `cpython` package has no declaration, or one with the wrong error contract.
from cpython.object cimport PyObject, PyTypeObject

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

    # Raw results: the caller owns the reference and looks for NULL itself.
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
    # `args[0]` is the object whose method is called; as each call of an attribute does, it looks the name up anew.
    PyObject *PyObject_VectorcallMethod(PyObject *name, PyObject *const *args, size_t nargsf, PyObject *kwnames)
    PyObject *PyObject_Call(PyObject *callable, PyObject *args, PyObject *kwargs)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET

    object PyContext_CopyCurrent()
    object PyContext_Copy(object context)
    # -1 with an exception set; never checked by Cython, so that a pending exception survives the exit.
    int PyContext_Enter(PyObject *context)
    int PyContext_Exit(PyObject *context)

    int PyErr_CheckSignals() except -1
    object PyErr_SetFromErrno(object exception)

    object PyBytes_FromStringAndSize(const char *text, Py_ssize_t size)
    # Raw: the caller owns the only reference, which a resize asks for.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *text, Py_ssize_t size)
    int _PyBytes_Resize(PyObject **text, Py_ssize_t size) except -1
    char *PyBytes_AS_STRING(object text)
    Py_ssize_t PyBytes_GET_SIZE(object text)

    object PyUnicode_EncodeFSDefault(object text)
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)

    PyObject **PySequence_Fast_ITEMS(object sequence)

# Cython makes no tp_traverse for references that a type keeps in C arrays: a type that does sets its own.
cdef extern from *:
    """
    static void penstock_set_traverse(PyObject *type, traverseproc traverse)
    {
        ((PyTypeObject *)type)->tp_traverse = traverse;
    }
    """
    ctypedef int (*visitproc)(PyObject *object, void *arg) noexcept
    void set_traverse "penstock_set_traverse"(object type_, void *traverse) noexcept

# A truth value in one byte: Cython's `bint` takes four.
cdef extern from *:
    ctypedef bint flag "unsigned char"

# Cython makes the dictionary of a new object at once. Without one a method is found without looking there (measured: 350
# instructions less for an echo), and CPython makes it when the first attribute is set.
cdef extern from *:
    """
    static void penstock_drop_dict(PyObject *object)
    {
        Py_CLEAR(*(PyObject **)((char *)object + Py_TYPE(object)->tp_dictoffset));
    }
    """
    void drop_dict "penstock_drop_dict"(object object_) noexcept

# A method in C's fastest calling convention: positional arguments and keyword values in one array.
cdef extern from "Python.h":
    ctypedef object (*FastMethod)(PyObject *self, PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords)
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc

    enum:
        METH_FASTCALL
        METH_KEYWORDS

    object PyDescr_NewMethod(PyTypeObject *type_, PyMethodDef *method)
    void PyType_Modified(PyTypeObject *type_)


# CPython's interpreter calls a C method directly where the object's own type defines it, not where a base does.
cdef extern from *:
    """
    /* Define the C methods of `base` in `type` too, unless it has its own. */
    static int penstock_adopt_methods(PyObject *type, PyObject *base)
    {
        PyObject *own = ((PyTypeObject *)type)->tp_dict, *name, *value;
        Py_ssize_t at = 0;
        while (PyDict_Next(((PyTypeObject *)base)->tp_dict, &at, &name, &value)) {
            int is_own = PyDict_Contains(own, name);
            if (is_own < 0)
                return -1;
            if (is_own || !Py_IS_TYPE(value, &PyMethodDescr_Type))
                continue;
            PyObject *method = PyDescr_NewMethod((PyTypeObject *)type, ((PyMethodDescrObject *)value)->d_method);
            int failed = method == NULL ? -1 : PyDict_SetItem(own, name, method);
            Py_XDECREF(method);
            if (failed)
                return -1;
        }
        PyType_Modified((PyTypeObject *)type);
        return 0;
    }
    """
    int adopt_methods "penstock_adopt_methods"(object type_, object base) except -1


cdef extern from *:
    """
    /* `kind(*values)` for a named tuple, whose own constructor is Python code. */
    static PyObject *penstock_row(PyObject *kind, PyObject *values)
    {
        PyObject *args = PyTuple_Pack(1, values), *row;
        if (args == NULL)
            return NULL;
        row = PyTuple_Type.tp_new((PyTypeObject *)kind, args, NULL);
        Py_DECREF(args);
        return row;
    }
    """
    object row "penstock_row"(object kind, tuple values)
