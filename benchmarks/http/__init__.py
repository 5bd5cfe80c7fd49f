"""The HTTP row: uvicorn with httptools on each arm's loop."""
