from penstock._core.tls.engine cimport Engine

cdef Engine make_engine(object context, bint server_side, object server_hostname)
cdef Engine upgraded(Engine engine)
