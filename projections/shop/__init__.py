"""The shopping cart's read models, a .sql file each, and its typed queries."""
