"""Fine-tuning: adapters over frozen weights, batches without padding, what a training keeps."""
