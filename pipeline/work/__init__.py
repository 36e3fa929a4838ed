"""The write side, one program: `dataflow` has it on one screen, `steps` what each step does.

What may not come in: read models, and anything of `read`.
"""
