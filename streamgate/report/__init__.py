"""The report: one HTML file that shows what a run kept, what it rejected, and why.

notes       data that each source stores with its records, so that the report needs neither networks nor footage
content     the contents of the page from the records: groups of faces, tracks, histograms, settings
page        the contents as one self-contained HTML text
write       OUT/report.html and the pages of single persons, written atomically
"""
