"""Kizuna's worker and its peers side by side: see README.md beside this file."""
