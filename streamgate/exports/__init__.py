"""Results in the formats that training code reads: Parquet, CSV, WebDataset, a Hugging Face imagefolder."""
