"""What an operator does with a system: run it, verify it, ask its past, send commands again.

What may not come in: printing; the command line does that.
"""
