"""Tables of one hospital's patients, and all metrics of a federation from such tables."""
