"""From a face in a picture to evidence, measures, gate and quality.

`ScoringContext` holds what a run or stream scores with, `FaceScorer` runs the steps, `Evaluator` computes measures,
gate and quality; `lockstep` lets many faces share network batches. This package knows faces and candidates, but not how
tracks are searched.
"""
