"""What every test may count on, whoever started the run."""

import signal

# A shell's background job ignores SIGINT, and so would every process that a test starts to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
