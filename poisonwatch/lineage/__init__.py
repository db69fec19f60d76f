"""Where rows came from, and where they went: from sources to training runs, by the ledger."""
