"""What makes a dataflow a program: its process, signals, log lines, metrics, and its end.

What may not come in: what the dataflows do.
"""
