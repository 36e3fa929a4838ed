"""What Foldlog works without: the demo, the benchmark, the starter of `foldlog new`.

What may not come in: what a pipeline needs to run. Only the command line imports this room.
"""
