"""Reasons: why something waits, in words for people and codes for programs. It must not decide."""
