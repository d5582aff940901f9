"""What one or several scans found, as one page, as Markdown or as CSV.

told        Report: plain structs with every number that is told
gather      rows in DuckDB -> Report
versions    which of two versions is the older
charts      Report -> Vega-Lite
blob        the rows themselves, column by column, for the page's table
page        Report, charts and blob -> one HTML file that needs nothing else; its parts lie in page/
sections, markup    Report -> the page's HTML
markdown, tickets   Report, rows -> what goes into a ticket
making      the whole way, from inputs to outputs
"""
