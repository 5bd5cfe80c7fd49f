# Extern declarations only: the kernel's and CPython's interfaces, as the core uses them.
