"""Prefect tasks: one library call each, with retries around it."""
