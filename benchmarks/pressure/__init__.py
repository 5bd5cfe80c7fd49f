"""Services under more load than they can do: an open-loop load generator in C, two services, ways to guard them."""
