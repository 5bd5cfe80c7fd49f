"""Views of a running process from outside: figures, the rules that name a fault, and the programs that show both."""
