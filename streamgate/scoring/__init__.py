"""From a face in a picture to evidence, measures, gate and quality.

`ScoringContext` is what a run or stream scores with, `FaceScorer` does it, `Evaluator` computes measures,
gate and quality; `lockstep` lets
many faces share the networks. Knows faces and candidates, and nothing of how tracks are searched.
"""
