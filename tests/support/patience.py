"""How long tests wait for what surely comes."""

# Seconds; whoever waits goes on at once when it comes. Long enough for a machine on which ten others
# are at work: who waits in vain has found a mistake, not a busy machine.
PATIENCE_S = 1800
