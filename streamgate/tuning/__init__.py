"""Applies changed settings to existing results: evaluates and selects faces again without reading all footage again.

settings        which settings may be changed, and the properties of a run with the changed settings
reevaluation    evaluates a stored face with another configuration
picking         selects the best faces of a track, and finds those that must be scored in the footage first
footage         finds frames in the footage again, and scores and crops faces in them
pictures        existing pictures of faces, for which no footage is needed
source          tunes one source
rewriting       writes the new folder of a tuned source
tune            tunes a whole output folder
labelled        finds labelled faces in results, for a fit
fitting         fits weights and mappings of measures to labels
fusion          converts evidence and presets to the values of a fit
limits          fits limits to labels
preset_fit      fits a preset, and describes the changes
"""
