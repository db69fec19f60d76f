"""What people are told of an audit: the messages, and where they go."""
