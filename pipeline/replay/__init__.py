"""From rows of the log back to events and states: what a restart, a rebuild and a question need.

What may not come in: deciding, the engine, read models' files.
"""
