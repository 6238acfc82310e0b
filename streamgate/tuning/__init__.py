"""Apply other limits to existing results: evaluate and select again without decoding everything again.

settings    what may be changed, and the run as it would have been with these settings
judging     stored faces under another configuration
picking     a track's faces anew, and which ones need a look at the footage first
footage     those looks: frames found again in a source, scored and cut out
staging     a source's folder with other picks, and all of them put in place so that nothing can be lost
tune        the whole of it
"""
