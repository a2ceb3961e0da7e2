"""Training and evaluation on the hospital's patients, with and without privacy."""
