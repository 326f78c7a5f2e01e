"""One experiment: cases, what an attack finds on them, and what the deployment says of that."""
