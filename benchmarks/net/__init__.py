"""Echo rows: a server per arm, a C client for load, a C server as the limit."""
