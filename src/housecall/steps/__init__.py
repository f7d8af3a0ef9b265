"""The steps of the pipeline: one verb, one file. They never import each other."""
