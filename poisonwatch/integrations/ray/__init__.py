"""Ray: the shards of a pass, spread over the machines of a cluster."""
