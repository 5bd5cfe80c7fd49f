"""The parts of `make demo`: a service, its servers, the load on it, and the faults that are named while they happen."""
