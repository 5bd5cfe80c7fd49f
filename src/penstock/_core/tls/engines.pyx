"""The choice of the TLS engine of a connection."""

from penstock._core.tls.engine cimport Engine
from penstock._core.tls.memory cimport memory_engine
from penstock._core.tls.openssl cimport BioEngine, bio_engine


cdef Engine make_engine(object context, bint server_side, object server_hostname):
    """Return the engine for the handshake. Raises what `SSLContext.wrap_bio` raises."""
    return memory_engine(context, server_side, server_hostname)


cdef Engine upgraded(Engine engine):
    """Return the engine for a connection over a `Stream` whose handshake is done; it has all that came and was not read."""
    cdef BioEngine made
    engine.settle()
    made = bio_engine(engine.ssl_object, engine.sslobj)
    return engine if made is None else made
