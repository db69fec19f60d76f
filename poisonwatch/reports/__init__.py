"""An audit for people: summary, HTML report, plots."""
