"""The report: one HTML file that shows what a run kept, what it rejected, and why.

notes       creates data that each source stores with its records, so that the report needs no networks and no footage
content     reads the contents of the page from the records: groups of faces, tracks, histograms, settings
page        turns the contents into one self-contained HTML text
write       writes OUT/report.html and the pages of individual persons atomically
"""
