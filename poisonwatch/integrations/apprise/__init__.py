"""Apprise: alerts to chats, mail and web hooks."""
