"""What people are notified of by an audit: the messages, and where they go."""
