"""Long runs that kill everything at random; `make chaos`. A short one is part of `make test`."""
