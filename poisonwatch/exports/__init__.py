"""Flagged rows for other tools: code hosts, spreadsheets, data frames, annotation tools."""
