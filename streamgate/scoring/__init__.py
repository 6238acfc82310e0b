"""Scores a face in a picture: evidence, measures, gate and quality.

`ScoringContext` holds the networks and settings of a run or stream, `FaceScorer` runs the steps, `Evaluator` computes
measures, gate and quality; `lockstep` lets many faces share network batches. This package handles individual faces;
the package `selection` decides which faces of a track are scored.
"""
