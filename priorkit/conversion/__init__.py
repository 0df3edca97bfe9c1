"""Converting weights in other formats to artifacts in safetensors: the one place that reads them."""
