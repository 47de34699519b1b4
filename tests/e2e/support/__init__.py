"""Plumbing of the end-to-end tests: the proxy under test, the origins behind it, the clients before it."""
