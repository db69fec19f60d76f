"""Where rows came from, and where they went: from sources to trained models, by the ledger."""
