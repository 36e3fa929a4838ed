"""Orders: they are placed, paid, and then shipped or cancelled, which may give credit."""
