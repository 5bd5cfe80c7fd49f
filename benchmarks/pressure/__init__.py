"""Rows of overload: an open-loop load generator in C, two services, and guards around them."""
