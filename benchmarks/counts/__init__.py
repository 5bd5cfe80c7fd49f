"""Instructions by callgrind and system calls by strace: figures that other load on the machine hardly changes."""
