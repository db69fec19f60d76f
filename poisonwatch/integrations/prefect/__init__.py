"""Prefect: artifacts and events of an audit."""
