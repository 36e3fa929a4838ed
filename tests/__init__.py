"""The promises, checked. What a test expects, it works out without the code under test."""
