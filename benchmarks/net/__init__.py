"""Echo rows: a server per arm, a client in C, and a server in C as the lower limit."""
