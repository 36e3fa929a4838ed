"""Orders: they are placed, paid, and then shipped or cancelled."""
