"""The report: one HTML file that shows what a run kept, what it rejected, and why.

notes       what each source stores beside its records so that the report needs neither networks nor footage
content     from records to what the page shows: groups of faces, tracks, histograms, settings
page        that as one self-contained HTML text
write       OUT/report.html and the pages of single persons, atomically
"""
