"""The read side, one program: `dataflow` has it on one screen, `steps` what each step does.

A rebuild is made here too, since it is the same thing from position 0. What may not come in: Redis,
deciding, and anything of `work`.
"""
