"""`python -m poisonwatch.flows.cli`."""

from poisonwatch.flows.cli.app import main

if __name__ == "__main__":
    main()
