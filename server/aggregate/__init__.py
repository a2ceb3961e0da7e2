"""From validated replies to the next global model, block by block."""
