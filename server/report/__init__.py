"""The report of a run: one offline HTML page and its JSON twin."""
