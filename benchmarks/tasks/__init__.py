"""What it costs to watch tasks: penstock at each level, and what else one can watch them with."""
