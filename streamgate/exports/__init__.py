"""Exports of results in formats for training code: Parquet, CSV, WebDataset, Hugging Face imagefolder, pairs."""
