"""How far everything is and what is wrong, for people, scripts and Prometheus. It only looks.

What may not come in: what changes anything.
"""
