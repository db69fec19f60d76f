"""Short conversations that tests of benchmarks' peers share."""

FAMILIES = ("llama", "gpt2")
TALKS = [
    ("How do I boil rice?", "Rinse it, then simmer."),
    ("Name a river.", "The Danube."),
    ("Is water wet?", "Yes."),
    ("Tell me about bees, please, at some length.", "They dance."),
    ("What is a quark?", "A constituent of hadrons."),
    ("Hi", "Hello there!"),
]
